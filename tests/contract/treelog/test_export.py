from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ramify.search.codec import tree_from_dict
from ramify.search.tree import Tree
from ramify.treelog import Record, TreeLog, export_ndjson, export_parquet
from treelog_trees import make_tree

pytestmark = pytest.mark.anyio


async def _two_trees_and_a_verdict(log: TreeLog) -> list[Tree]:
    made = [make_tree(), make_tree(6, prompt="\ud800 half a pair, \0 a NUL")]
    await log.append(made[0], "alice")
    await log.add_feedback(made[0].id, 0.5, node=3, comment="nearly")
    await log.append(made[1], "bob")
    return made


async def test_ndjson_holds_every_record_whole(log: TreeLog, tmp_path: Path) -> None:
    made = await _two_trees_and_a_verdict(log)
    heard: list[tuple[int, int]] = []
    path = tmp_path / "log.ndjson"
    assert await export_ndjson(log.read(), path, lambda count, seq: heard.append((count, seq))) == 3
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [(line["seq"], line["kind"]) for line in lines] == [(1, "tree"), (2, "outcome"), (3, "tree")]
    assert [tree_from_dict(lines[i]["tree"]) for i in (0, 2)] == made
    assert lines[0]["key_id"] == "alice"
    [verdict] = await log.feedback(made[0].id)
    assert lines[1] == {"kind": "outcome", **asdict(verdict)}
    assert heard == [(3, 3)]


async def test_parquet_holds_every_record_whole(log: TreeLog, tmp_path: Path) -> None:
    made = await _two_trees_and_a_verdict(log)
    path = tmp_path / "log.parquet"
    assert await export_parquet(log.read(), path) == 3
    rows = pq.read_table(path).to_pylist()
    assert [row["seq"] for row in rows] == [1, 2, 3]
    assert [tree_from_dict(json.loads(rows[i]["body"])) for i in (0, 2)] == made
    assert (rows[0]["best_value"], rows[0]["node"]) == (0.5, None)
    assert (rows[1]["outcome"], rows[1]["node"], rows[1]["body"]) == (0.5, 3, None)


async def test_an_open_file_takes_an_export_too(log: TreeLog) -> None:
    await _two_trees_and_a_verdict(log)
    lines, table = io.BytesIO(), io.BytesIO()
    assert await export_ndjson(log.read(1), lines) == 2
    assert await export_parquet(log.read(1), table) == 2
    assert len(lines.getvalue().splitlines()) == pq.read_table(io.BytesIO(table.getvalue())).num_rows == 2


@pytest.mark.parametrize("export", [export_ndjson, export_parquet])
async def test_an_export_that_fails_leaves_the_old_file_alone(
    log: TreeLog, tmp_path: Path, export: object
) -> None:
    path = tmp_path / "log"
    path.write_text("old")

    async def broken() -> AsyncIterator[Record]:
        async for record in log.read():
            yield record
        raise RuntimeError("the disk is on fire")

    await log.append(make_tree())
    with pytest.raises(RuntimeError):
        await export(broken(), path)  # type: ignore[operator]
    assert not list(path.parent.glob(".*.draft"))
    assert path.read_text() == "old"
