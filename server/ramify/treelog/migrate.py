"""Brings a store to this build's schema. Migrations only append; there is no way back but a backup."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from ramify.treelog.errors import SchemaMismatch

SCRIPTS = Path(__file__).with_name("migrations")
_LOCK = 0x72616D696679  # "ramify": the PostgreSQL advisory lock that one migration at a time holds


async def upgrade(engine: AsyncEngine) -> None:
    """Migrate to the newest schema in one transaction: a kill leaves the schema as it was."""
    async with engine.begin() as conn:
        if engine.dialect.name == "postgresql":
            await conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        await conn.run_sync(_upgrade)


async def check(engine: AsyncEngine) -> None:
    """Raise `SchemaMismatch` unless the store has exactly this build's schema."""
    async with engine.connect() as conn:
        found = await conn.run_sync(_revision)
    if found != _newest():
        raise SchemaMismatch(
            f"the log's schema is {found or 'missing'} and this Ramify reads {_newest()}; "
            "`ramify serve` with this version migrates an older one"
        )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    return config


def _newest() -> str:
    head = ScriptDirectory(str(SCRIPTS)).get_current_head()
    assert head is not None
    return head


def _revision(conn: Connection) -> str | None:
    return MigrationContext.configure(conn).get_current_revision()


def _upgrade(conn: Connection) -> None:
    found = _revision(conn)
    if found == _newest():
        return
    known = {script.revision for script in ScriptDirectory(str(SCRIPTS)).walk_revisions()}
    if found is not None and found not in known:
        raise SchemaMismatch(
            f"the log's schema {found} was written by a newer Ramify; this one knows {_newest()}"
        )
    config = _config()
    config.attributes["connection"] = conn
    command.upgrade(config, "head")
