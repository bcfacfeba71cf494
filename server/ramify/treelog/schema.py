"""The tables as they are now, and the migrations that bring a store to them.

Migrations only append and never import this module; there is no way back but a backup.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    text,
)
from sqlalchemy.ext.asyncio import AsyncEngine

from ramify.treelog.errors import LogError

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def plain(text: str) -> str:
    """Replace each character that a store cannot hold by one that it can: PostgreSQL refuses NUL, neither store takes
    half a surrogate pair."""
    return _UNSTORABLE.sub("\ufffd", text)


class PlainText(TypeDecorator[str]):
    """Text made `plain` on its way in, also if it is only compared with."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        return None if value is None else plain(value)


metadata = MetaData()

# INTEGER on SQLite makes a primary key the row's own address there.
Big = BigInteger().with_variant(Integer, "sqlite")

counter = Table(
    "counter",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("last", Big, nullable=False),
)
"""One row: the last `seq` given out. A writer that holds its lock is the only one."""

trees = Table(
    "trees",
    metadata,
    Column("seq", Big, primary_key=True, autoincrement=False),
    Column("tree_id", PlainText, nullable=False, unique=True),
    Column("created_at", Double, nullable=False),
    Column("status", PlainText, nullable=False),
    Column("model", PlainText, nullable=False),
    Column("release", PlainText, nullable=False),
    Column("algorithm", PlainText, nullable=False),
    Column("task", PlainText),
    Column("n_nodes", Big, nullable=False),
    Column("n_tokens", Big, nullable=False),
    Column("best_value", Double),
    Column("outcome", Double),
    Column("key_id", PlainText, nullable=False),
    Column("train", Boolean, nullable=False),
    Column("prompt", PlainText, nullable=False),
    Column("answer", PlainText),
    Column("answer_node", Big),
    Column("verdict_seq", Big),
    Column("schema_version", Integer, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("store", Integer),
    Column("size", Big),
    Column("continues", PlainText),
    Index("ix_trees_key_id_seq", "key_id", "seq"),
    Index("ix_trees_created_at", "created_at"),
    Index(
        "ix_trees_continues",
        "continues",
        sqlite_where=text("continues IS NOT NULL"),
        postgresql_where=text("continues IS NOT NULL"),
    ),
    Index(
        "ix_trees_sha256",
        "sha256",
        sqlite_where=text("store IS NOT NULL"),
        postgresql_where=text("store IS NOT NULL"),
    ),
)
"""`store`: null if the body is in `body`, else the row of `object_stores` whose store has it, and `body` is empty.
`size`: bytes of the body, compressed; null in rows of before there were stores."""

SUMMARY = [
    c
    for c in trees.c
    if c.name not in ("body", "store", "size", "sha256", "schema_version", "answer_node", "verdict_seq")
]
"""The columns that a listing shows."""

object_stores = Table(
    "object_stores",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("url", PlainText, nullable=False, unique=True),
    Column("mark", String(32), nullable=False),
)
"""Stores that have held bodies of this log, and the mark that each of them holds."""

feedback = Table(
    "feedback",
    metadata,
    Column("seq", Big, primary_key=True, autoincrement=False),
    Column("outcome_id", PlainText, nullable=False, unique=True),
    Column("tree_id", PlainText, nullable=False),
    Column("node", Big),
    Column("answer", PlainText),
    Column("outcome", Double, nullable=False),
    Column("source", PlainText, nullable=False),
    Column("key_id", PlainText, nullable=False),
    Column("comment", PlainText, nullable=False),
    Column("train", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
    Index("ix_feedback_tree_id", "tree_id"),
)

consumers = Table(
    "consumers",
    metadata,
    Column("name", PlainText, primary_key=True),
    Column("cursor", Big, nullable=False),
    Column("version", Big, nullable=False),
    Column("owner", PlainText),
    Column("lease_expires", Double),
    Column("updated_at", Double, nullable=False),
    Column("key_id", PlainText, nullable=False),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("key_id", PlainText, primary_key=True),
    Column("key", PlainText, primary_key=True),
    Column("body_hash", PlainText, nullable=False),
    Column("search_id", PlainText, nullable=False),
    Column("state", PlainText, nullable=False),
    Column("boot_id", PlainText, nullable=False),
    Column("body", LargeBinary),
    Column("expires_at", Double, nullable=False),
    Index("ix_idempotency_expires_at", "expires_at"),
)

releases = Table(
    "releases",
    metadata,
    Column("release_id", PlainText, primary_key=True),
    Column("state", PlainText, nullable=False),
    Column("figures", PlainText, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
)

activations = Table(
    "activations",
    metadata,
    Column("id", Big, primary_key=True, autoincrement=False),
    Column("release_id", PlainText, nullable=False),
    Column("note", PlainText, nullable=False),
    Column("activated_at", Double, nullable=False),
    Column("kind", PlainText, nullable=False),
)
"""Append-only; the newest row names the active release."""


checkpoints = Table(
    "checkpoints",
    metadata,
    Column("tree_id", PlainText, primary_key=True),
    Column("key_id", PlainText, nullable=False),
    Column("continues", PlainText),
    Column("boot_id", PlainText, nullable=False),
    Column("renewed_at", Double, nullable=False),
    Column("lease_seconds", Double, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("body", LargeBinary, nullable=False),
)


SCRIPTS = Path(__file__).with_name("migrations")
_LOCK = 0x72616D696679  # "ramify": the PostgreSQL advisory lock that one migration at a time holds


async def upgrade(engine: AsyncEngine, scripts: Path | None = None, table: str = "alembic_version") -> None:
    """Migrate to the newest schema in one transaction: a kill leaves the schema as it was.

    scripts, table: another package's migrations in the same store, and the table that says how far they are."""
    async with engine.begin() as conn:
        if engine.dialect.name == "postgresql":
            await conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        await conn.run_sync(_upgrade, scripts or SCRIPTS, table)


async def check(engine: AsyncEngine) -> None:
    """Raise `LogError` unless the store has exactly this build's schema."""
    async with engine.connect() as conn:
        revision = await conn.run_sync(_revision, "alembic_version")
    newest = _newest(SCRIPTS)
    if revision != newest:
        raise LogError(
            f"the log's schema is {revision or 'missing'} and this Ramify reads {newest}; "
            "`ramify serve` with this version migrates an older one"
        )


@cache
def _newest(scripts: Path) -> str:
    head = ScriptDirectory(str(scripts)).get_current_head()
    assert head is not None
    return head


def _revision(conn: Connection, table: str) -> str | None:
    return MigrationContext.configure(conn, opts={"version_table": table}).get_current_revision()


def _upgrade(conn: Connection, scripts: Path, table: str) -> None:
    revision, newest = _revision(conn, table), _newest(scripts)
    if revision == newest:
        return
    known = {script.revision for script in ScriptDirectory(str(scripts)).walk_revisions()}
    if revision is not None and revision not in known:
        raise LogError(f"the log's schema {revision} was written by a newer Ramify; this one knows {newest}")
    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    config.attributes.update(connection=conn, table=table)
    command.upgrade(config, "head")
