"""Export of the log to files. Memory holds one row group, however long the log is."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from ramify.files import replacing
from ramify.treelog.records import Entry, Record
from ramify.treelog.rows import json_line

Target = str | os.PathLike[str] | IO[bytes]
Progress = Callable[[int, int], None]
"""Called with (records written, seq reached)."""

_ROWS = 512
_BYTES = 32 << 20


async def export_ndjson(
    records: AsyncIterable[Record], target: Target, progress: Progress | None = None
) -> int:
    """Write one JSON object a line, as `rows.json_line` does. Returns the number of records.

    A path appears whole or not at all: the file is written beside it and renamed.
    """
    count = 0
    with _opened(target) as file:
        async for group in _groups(records):
            await asyncio.to_thread(lambda lines: file.writelines(lines), [json_line(r) for r in group])
            count += len(group)
            if progress:
                progress(count, group[-1].seq)
    return count


async def export_parquet(
    records: AsyncIterable[Record], target: Target, progress: Progress | None = None
) -> int:
    """Write one row a record: `kind`, the columns of trees, feedback and corrupt rows (null if they do not apply), and
    `body`, the tree's JSON. Returns the number of records; a path appears whole or not at all.
    """
    import pyarrow as pa  # half a second to import, and only needed here
    import pyarrow.parquet as pq

    schema = pa.schema([(name, getattr(pa, kind)()) for name, kind in _COLUMNS.items()])
    count = 0
    with _opened(target) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        async for group in _groups(records):
            table = pa.Table.from_pylist([_flat(record) for record in group], schema=schema)
            await asyncio.to_thread(writer.write_table, table)
            count += len(group)
            if progress:
                progress(count, group[-1].seq)
    return count


_COLUMNS = {
    "seq": "int64",
    "kind": "string",
    "tree_id": "string",
    "created_at": "float64",
    "status": "string",
    "model": "string",
    "release": "string",
    "algorithm": "string",
    "task": "string",
    "n_nodes": "int64",
    "n_tokens": "int64",
    "best_value": "float64",
    "outcome": "float64",
    "outcome_source": "string",
    "key_id": "string",
    "train": "bool_",
    "prompt": "string",
    "answer": "string",
    "schema_version": "int32",
    "sha256": "string",
    "body": "large_string",
    "outcome_id": "string",
    "node": "int64",
    "source": "string",
    "comment": "string",
    "reason": "string",
}


def _flat(record: Record) -> dict[str, Any]:
    flat = {"kind": record.kind, **asdict(record)}
    return flat | {"body": record.body.decode("ascii")} if isinstance(record, Entry) else flat


async def _groups(records: AsyncIterable[Record]) -> AsyncIterator[list[Record]]:
    group: list[Record] = []
    size = 0
    async for record in records:
        group.append(record)
        size += len(record.body) if isinstance(record, Entry) else 0
        if len(group) >= _ROWS or size >= _BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


@contextmanager
def _opened(target: Target) -> Iterator[IO[bytes]]:
    if not isinstance(target, str | os.PathLike):
        yield target
        return
    with replacing(Path(target)) as file:
        yield file
