"""Bodies as objects: object first, row second; rows first, objects second; and nothing of another log's."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fixtures_objects import S3Server, s3_server  # noqa: F401  (a fixture)
from ramify.objects import Folder, ObjectOptions
from ramify.treelog import CorruptRow, CorruptTree, LogError, StoreError, TreeLog
from ramify.treelog.bodies import MARK, object_name
from treelog_trees import make_tree

from .conftest import Clock

pytestmark = pytest.mark.anyio
HERE = Path(__file__).parent
GRACE = 60.0


def folder(tmp_path: Path, **fields: Any) -> ObjectOptions:
    return ObjectOptions(trees=f"file://{tmp_path}/bodies", grace_seconds=GRACE, **fields)


def bodies(tmp_path: Path) -> list[str]:
    """The names of the objects that are there, the mark aside."""
    files = (path for path in (tmp_path / "bodies" / "trees").rglob("*") if path.is_file())
    return sorted(path.relative_to(tmp_path / "bodies").as_posix() for path in files)


async def name_of(log: TreeLog, tree_id: str) -> str:
    entry = await log.get(tree_id)
    assert entry is not None
    return object_name(entry.sha256)


async def all_of(log: TreeLog) -> list[Any]:
    return [record async for record in log.read()]


@pytest.fixture
def now() -> Clock:
    """A clock by which a minute can pass, as the files' own has it."""
    clock = Clock()
    clock.now = time.time()
    return clock


async def test_a_log_goes_on_with_objects_and_back_and_old_bodies_stay_where_they_are(
    url: str, tmp_path: Path
) -> None:
    made = [make_tree(n) for n in (3, 4, 5)]
    for tree, options in zip(made, (ObjectOptions(), folder(tmp_path), ObjectOptions()), strict=True):
        async with await TreeLog.open(url, objects=options) as log:
            await log.append(tree)
    async with await TreeLog.open(url, read_only=True) as log:
        assert [record.tree() for record in await all_of(log)] == made
        assert bodies(tmp_path) == [await name_of(log, made[1].id)]
        assert (await log.verify()).ok
        sizes = [len((tmp_path / "bodies" / name).read_bytes()) for name in bodies(tmp_path)]
        assert (await log.size()).bytes > sizes[0] * 2


async def test_a_log_in_a_bucket_does_all_that_one_of_rows_does(
    url: str,
    s3_server: S3Server,  # noqa: F811
) -> None:
    options = s3_server.options(trees=s3_server.bucket())
    async with await TreeLog.open(url, objects=options) as log:
        made = [make_tree() for _ in range(40)]
        await asyncio.gather(*(log.append(tree) for tree in made))
        await log.add_feedback(made[0].id, 1.0, node=3)
        entry = await log.get(made[7].id)
        assert entry is not None
        assert entry.tree() == made[7]
        assert {r.tree_id: r.tree() for r in await all_of(log) if r.kind == "tree"} == {t.id: t for t in made}
        assert (await log.verify()).ok
        assert await log.delete(made[7].id)
        assert (await log.expire(keep_newest=4)).trees == 35
        assert len(await log.list()) == 4
        await log.probe()
    async with await TreeLog.open(url, read_only=True, objects=s3_server.options()) as log:
        assert len([r for r in await all_of(log) if r.kind == "tree"]) == 4


@pytest.mark.parametrize("point", ["before_object", "after_object", "after_row", "after_rows_gone"])
async def test_a_kill_at_any_point_leaves_no_row_without_its_object_and_orphans_are_collected(
    tmp_path: Path, point: str, now: Clock
) -> None:
    url, options = f"sqlite:///{tmp_path}/log.db", folder(tmp_path)
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, HERE / "object_appender.py", url, str(options.trees), point],
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
        stdout=subprocess.PIPE,
        timeout=120,
        check=False,
    )
    assert done.returncode == -9
    async with await TreeLog.open(url, objects=options, clock=now) as log:
        records = await all_of(log)
        assert [record.kind for record in records] == ["tree"] * len(records)
        assert records[0].tree_id == done.stdout.decode().strip()
        assert (await log.verify()).ok
        kept = sorted(object_name(record.sha256) for record in records)
        orphans = 1 if point in ("after_object", "after_rows_gone") else 0
        assert (len(kept), len(bodies(tmp_path))) == (2 if point == "after_row" else 1, len(kept) + orphans)
        assert await log.sweep() == 0, "a young object's row may be about to come"
        now.advance(GRACE + 60)
        assert await log.sweep() == orphans
        assert bodies(tmp_path) == kept
        assert (await log.verify()).ok


async def test_a_body_that_is_placed_again_is_young_again(url: str, tmp_path: Path, now: Clock) -> None:
    """As when the database was away for longer than the grace: the row comes late, and a sweep must not come first."""
    async with await TreeLog.open(url, objects=folder(tmp_path), clock=now) as log:
        tree = make_tree()
        encoded = await log.encode(tree)
        place = tmp_path / "bodies" / object_name(encoded.row["sha256"])
        place.parent.mkdir(parents=True)
        place.write_bytes(encoded.row["body"])
        os.utime(place, (now.now - 2 * GRACE, now.now - 2 * GRACE))
        await log.append_encoded(encoded)
        assert place.stat().st_mtime > now.now - GRACE
        assert (await log.verify()).ok


async def test_a_body_that_is_placed_again_while_a_sweep_runs_stays(
    url: str, tmp_path: Path, now: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep has listed it as old, and its row comes after the sweep has looked for one."""
    async with await TreeLog.open(url, objects=folder(tmp_path), clock=now) as log:
        tree, orphan = make_tree(), make_tree(5)
        encoded = await log.encode(tree)
        for one in (encoded, await log.encode(orphan)):
            place = tmp_path / "bodies" / object_name(one.row["sha256"])
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(one.row["body"])
            os.utime(place, (now.now - 2 * GRACE, now.now - 2 * GRACE))
        name, listed = object_name(encoded.row["sha256"]), Folder.find

        def find_and_renew(self: Folder, prefix: str) -> Iterator[Mapping[str, float]]:
            yield from listed(self, prefix)
            if name.startswith(prefix):
                self.renew(name, encoded.row["body"])

        monkeypatch.setattr(Folder, "find", find_and_renew)
        assert await log.sweep() == 1, "the other one"
        assert bodies(tmp_path) == [name]
        await log.append_encoded(encoded)
        assert (await log.verify()).ok


async def test_a_body_that_the_store_has_lost_is_told_by_its_trees_name_and_stops_no_reader(
    url: str, tmp_path: Path
) -> None:
    async with await TreeLog.open(url, objects=folder(tmp_path)) as log:
        lost, sound = make_tree(), make_tree(5)
        for tree in (lost, sound):
            await log.append(tree)
        (tmp_path / "bodies" / await name_of(log, lost.id)).unlink()
        with pytest.raises(CorruptTree, match=f"{lost.id}: its object store has lost the body"):
            await log.get(lost.id)
        first, second = await all_of(log)
        assert isinstance(first, CorruptRow)
        assert second.tree() == sound
        assert [bad.tree_id for bad in (await log.verify()).bad] == [lost.id]


async def test_a_store_that_is_away_is_no_corruption(url: str, tmp_path: Path) -> None:
    """As when a disk is not mounted: its folder is there, and empty."""
    async with await TreeLog.open(url, objects=folder(tmp_path)) as log:
        tree = make_tree()
        await log.append(tree)
        shutil.move(tmp_path / "bodies", tmp_path / "elsewhere")
        (tmp_path / "bodies").mkdir()
        for call in (log.get(tree.id), all_of(log), log.probe(), log.sweep(), log.verify()):
            with pytest.raises(StoreError, match=f"lacks {MARK}"):
                await call
    with pytest.raises(StoreError, match=f"lacks {MARK}"):
        await TreeLog.open(url, objects=folder(tmp_path))
    (tmp_path / "bodies").rmdir()
    shutil.move(tmp_path / "elsewhere", tmp_path / "bodies")
    async with await TreeLog.open(url, objects=folder(tmp_path)) as log:
        assert (await log.verify()).ok


async def test_two_logs_do_not_share_a_store(url: str, tmp_path: Path) -> None:
    async with await TreeLog.open(f"sqlite:///{tmp_path}/other.db", objects=folder(tmp_path)) as log:
        await log.append(make_tree())
    with pytest.raises(LogError, match="holds the bodies of another log; give each log a prefix of its own"):
        await TreeLog.open(url, objects=folder(tmp_path))
    assert len(bodies(tmp_path)) == 1


async def test_a_start_that_was_cut_short_before_the_mark_is_made_good(url: str, tmp_path: Path) -> None:
    async with await TreeLog.open(url, objects=folder(tmp_path)):
        pass
    shutil.rmtree(tmp_path / "bodies")
    async with await TreeLog.open(url, objects=folder(tmp_path)) as log:
        await log.append(make_tree())
        assert (await log.verify()).ok


async def test_a_sweep_leaves_alone_what_is_no_body(url: str, tmp_path: Path, now: Clock) -> None:
    strangers = [
        tmp_path / "bodies" / name for name in ("trees/ab/notes.txt", "v000001.json", "trees/README")
    ]
    async with await TreeLog.open(url, objects=folder(tmp_path), clock=now) as log:
        await log.append(make_tree())
        for path in strangers:
            path.parent.mkdir(exist_ok=True)
            path.touch()
        now.advance(1_000_000)
        assert await log.sweep() == 0
        assert all(path.exists() for path in strangers)
        assert (await log.verify()).ok


async def test_an_object_that_cannot_be_removed_is_left_to_the_sweep(
    tmp_path: Path,
    s3_server: S3Server,  # noqa: F811
    now: Clock,
) -> None:
    options = s3_server.options(trees=s3_server.bucket(), retries=0, grace_seconds=GRACE)
    async with await TreeLog.open(f"sqlite:///{tmp_path}/log.db", objects=options, clock=now) as log:
        tree = make_tree()
        await log.append(tree)
        s3_server.doorway.shut()
        try:
            assert await log.delete(tree.id), "its row is gone"
        finally:
            s3_server.doorway.open()
        now.advance(GRACE + 60)
        assert await log.sweep() == 1


async def test_while_a_bucket_is_away_nothing_is_written_and_the_event_loop_goes_on(
    tmp_path: Path,
    s3_server: S3Server,  # noqa: F811
) -> None:
    options = s3_server.options(trees=s3_server.bucket(), retries=0, seconds=1)
    async with await TreeLog.open(f"sqlite:///{tmp_path}/log.db", objects=options) as log:
        tree, ticks = make_tree(), 0
        s3_server.hang()
        try:
            appending = asyncio.create_task(log.append(tree))
            while not appending.done():
                await asyncio.sleep(0.01)
                ticks += 1
            with pytest.raises(StoreError, match="s3://"):
                await appending
            with pytest.raises(StoreError, match="s3://"):
                await log.probe()
        finally:
            s3_server.go_on()
        assert ticks > 10
        assert await log.list() == []
        assert await log.append(tree) == 1
        assert await log.append(tree) == 1


async def test_a_process_opens_no_bucket_that_is_away(tmp_path: Path) -> None:
    options = ObjectOptions(trees="s3://bucket/x", endpoint="http://127.0.0.1:1", retries=0)
    with pytest.raises(StoreError, match="s3://bucket/x failed at"):
        await TreeLog.open(f"sqlite:///{tmp_path}/log.db", objects=options)
    async with await TreeLog.open(f"sqlite:///{tmp_path}/log.db") as log:  # and holds nothing
        assert await log.high_water() == 0
