from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect

from ramify.treelog import LogError, TreeLog, schema
from ramify.treelog.schema import metadata
from ramify.treelog.store import reader_engine
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


async def test_the_index_of_continuations_holds_no_tree_that_goes_on_from_none(log: TreeLog) -> None:
    """Nearly every row has none, and `compare_metadata` does not look at an index's condition."""
    engine = reader_engine(log.store)
    try:
        async with engine.connect() as conn:
            indexes = await conn.run_sync(lambda c: inspect(c).get_indexes("trees"))
    finally:
        await engine.dispose()
    (found,) = (index for index in indexes if index["name"] == "ix_trees_continues")
    condition = str(found["dialect_options"][f"{engine.dialect.name}_where"])
    assert condition.strip("()") == "continues IS NOT NULL"


async def test_opens_at_once_migrate_once(url: str) -> None:
    opened = await asyncio.gather(*(TreeLog.open(url) for _ in range(6)), return_exceptions=True)
    logs = [log for log in opened if isinstance(log, TreeLog)]
    refused = [type(error) for error in opened if not isinstance(error, TreeLog)]
    assert refused == ([LogError] * 5 if url.startswith("sqlite") else [])
    seqs = await asyncio.gather(*(log.append(make_tree()) for log in logs))
    assert sorted(seqs) == list(range(1, len(logs) + 1))
    for log in logs:
        await log.close()


NEXT = """
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "0004", "0003", None, None


def upgrade() -> None:
    op.add_column("trees", sa.Column("colour", sa.Text))
"""


async def test_a_log_is_brought_to_the_next_schema_and_its_trees_stay(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = tmp_path / "migrations"
    shutil.copytree(schema.SCRIPTS, newer)
    (newer / "versions" / "v0004_next.py").write_text(NEXT)
    async with await TreeLog.open(url) as log:
        await log.append(make_tree())
    with monkeypatch.context() as patched:
        patched.setattr(schema, "SCRIPTS", newer)
        with pytest.raises(LogError, match="schema is 0003 and this Ramify reads 0004"):
            await TreeLog.open(url, read_only=True)
        for _ in range(2):  # the second finds nothing left to do
            async with await TreeLog.open(url) as log:
                assert (await log.verify()).ok
                assert await log.high_water() == 1
                async with log._reads.connect() as conn:
                    assert (await conn.exec_driver_sql("SELECT colour FROM trees")).scalars().all() == [None]
    with pytest.raises(LogError, match="schema 0004 was written by a newer Ramify"):
        await TreeLog.open(url)
