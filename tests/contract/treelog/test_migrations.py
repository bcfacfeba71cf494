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


async def test_an_older_log_learns_which_answer_was_chosen_and_what_was_said_of_it_last(url: str) -> None:
    tree, other = make_tree(), make_tree()
    async with await TreeLog.open(url) as log:
        for made in (tree, other):
            await log.append(made)
        await log.add_feedback(tree.id, 1.0, node=3)
        await log.add_feedback(other.id, 1.0, node=1)
        assert log._writes is not None
        async with log._writes.begin() as conn:
            for table, column in (
                ("trees", "answer_node"),
                ("trees", "verdict_seq"),
                ("consumers", "key_id"),
            ):
                await conn.exec_driver_sql(f"ALTER TABLE {table} DROP COLUMN {column}")
            await conn.exec_driver_sql("UPDATE alembic_version SET version_num = '0002'")
    async with await TreeLog.open(url) as log:
        assert [(row.tree_id, row.outcome) for row in await log.list()] == [(other.id, None), (tree.id, 1.0)]
        assert (await log.verify()).ok
