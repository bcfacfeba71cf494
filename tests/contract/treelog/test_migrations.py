from __future__ import annotations

import asyncio

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from ramify.treelog import StoreLocked, TreeLog
from ramify.treelog.engine import reader_engine
from ramify.treelog.schema import metadata
from treelog_trees import make_tree

pytestmark = pytest.mark.anyio


async def test_the_migrations_make_exactly_the_schema_that_the_code_uses(log: TreeLog) -> None:
    engine = reader_engine(log.store)
    try:
        async with engine.connect() as conn:
            found = await conn.run_sync(lambda c: compare_metadata(MigrationContext.configure(c), metadata))
    finally:
        await engine.dispose()
    assert found == []


async def test_opens_at_once_migrate_once(url: str) -> None:
    opened = await asyncio.gather(*(TreeLog.open(url) for _ in range(6)), return_exceptions=True)
    logs = [log for log in opened if isinstance(log, TreeLog)]
    refused = [type(error) for error in opened if not isinstance(error, TreeLog)]
    assert refused == ([StoreLocked] * 5 if url.startswith("sqlite") else [])
    seqs = await asyncio.gather(*(log.append(make_tree()) for log in logs))
    assert sorted(seqs) == list(range(1, len(logs) + 1))
    for log in logs:
        await log.close()
