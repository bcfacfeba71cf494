"""The tables as they are now. Migrations spell out how they came to be and never import this."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def plain(text: str) -> str:
    """Text that both stores hold: PostgreSQL refuses NUL, neither takes half a surrogate pair. Same length."""
    return _UNSTORABLE.sub("\ufffd", text)


class PlainString(TypeDecorator[str]):
    """Text made `plain` on its way in, also where it is only compared with."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        return None if value is None else plain(value)


class PlainText(PlainString):
    """The same, long."""

    impl = Text
    cache_ok = True


metadata = MetaData()

# INTEGER on SQLite makes a primary key the row's own address there.
Big = BigInteger().with_variant(Integer, "sqlite")

counter = Table(
    "counter",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("last", Big, nullable=False),
)
"""One row: the last `seq` given out. Locking it is what makes a writer the only one."""

trees = Table(
    "trees",
    metadata,
    Column("seq", Big, primary_key=True, autoincrement=False),
    Column("tree_id", PlainString, nullable=False, unique=True),
    Column("created_at", Double, nullable=False),
    Column("status", PlainString, nullable=False),
    Column("model", PlainString, nullable=False),
    Column("release", PlainString, nullable=False),
    Column("algorithm", PlainString, nullable=False),
    Column("task", PlainString),
    Column("n_nodes", Big, nullable=False),
    Column("n_tokens", Big, nullable=False),
    Column("best_value", Double),
    Column("outcome", Double),
    Column("key_id", PlainString, nullable=False),
    Column("train", Boolean, nullable=False),
    Column("prompt", PlainText, nullable=False),
    Column("answer", PlainText),
    Column("answer_node", Big),
    Column("verdict_seq", Big),
    Column("schema_version", Integer, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("ix_trees_key_id_seq", "key_id", "seq"),
    Index("ix_trees_created_at", "created_at"),
)

SUMMARY = [
    c for c in trees.c if c.name not in ("body", "sha256", "schema_version", "answer_node", "verdict_seq")
]
"""What a listing shows: everything but the body."""

outcomes = Table(
    "outcomes",
    metadata,
    Column("seq", Big, primary_key=True, autoincrement=False),
    Column("outcome_id", PlainString, nullable=False, unique=True),
    Column("tree_id", PlainString, nullable=False),
    Column("node", Big),
    Column("answer", PlainText),
    Column("outcome", Double, nullable=False),
    Column("source", PlainString, nullable=False),
    Column("key_id", PlainString, nullable=False),
    Column("comment", PlainText, nullable=False),
    Column("train", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
    Index("ix_outcomes_tree_id", "tree_id"),
)

consumers = Table(
    "consumers",
    metadata,
    Column("name", PlainString, primary_key=True),
    Column("cursor", Big, nullable=False),
    Column("version", Big, nullable=False),
    Column("owner", PlainString),
    Column("lease_expires", Double),
    Column("updated_at", Double, nullable=False),
    Column("key_id", PlainString, nullable=False, server_default=""),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("key_id", PlainString, primary_key=True),
    Column("key", PlainString, primary_key=True),
    Column("body_hash", PlainString, nullable=False),
    Column("search_id", PlainString, nullable=False),
    Column("state", PlainString, nullable=False),
    Column("boot_id", PlainString, nullable=False),
    Column("status", Integer),
    Column("body", LargeBinary),
    Column("expires_at", Double, nullable=False),
    Index("ix_idempotency_expires_at", "expires_at"),
)

releases = Table(
    "releases",
    metadata,
    Column("release_id", PlainString, primary_key=True),
    Column("state", PlainString, nullable=False),
    Column("figures", PlainText, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
)

activations = Table(
    "activations",
    metadata,
    Column("id", Big, primary_key=True, autoincrement=False),
    Column("release_id", PlainString, nullable=False),
    Column("note", PlainText, nullable=False),
    Column("activated_at", Double, nullable=False),
    Column("kind", PlainString, nullable=False, server_default="activate"),
)
"""Append-only; the newest row names the active release."""
