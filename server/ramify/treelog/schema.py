"""The tables as they are now. Migrations spell out how they came to be and never import this."""

from __future__ import annotations

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
)

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
    Column("tree_id", String, nullable=False, unique=True),
    Column("created_at", Double, nullable=False),
    Column("status", String, nullable=False),
    Column("model", String, nullable=False),
    Column("release", String, nullable=False),
    Column("algorithm", String, nullable=False),
    Column("task", String),
    Column("n_nodes", Big, nullable=False),
    Column("n_tokens", Big, nullable=False),
    Column("best_value", Double),
    Column("outcome", Double),
    Column("key_id", String, nullable=False),
    Column("train", Boolean, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("answer", Text),
    Column("schema_version", Integer, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("ix_trees_key_id_seq", "key_id", "seq"),
    Index("ix_trees_created_at", "created_at"),
)

SUMMARY = [c for c in trees.c if c.name not in ("body", "sha256", "schema_version")]
"""What a listing shows: everything but the body."""

outcomes = Table(
    "outcomes",
    metadata,
    Column("seq", Big, primary_key=True, autoincrement=False),
    Column("outcome_id", String, nullable=False, unique=True),
    Column("tree_id", String, nullable=False),
    Column("node", Big),
    Column("answer", Text),
    Column("outcome", Double, nullable=False),
    Column("source", String, nullable=False),
    Column("key_id", String, nullable=False),
    Column("comment", Text, nullable=False),
    Column("train", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
    Index("ix_outcomes_tree_id", "tree_id"),
)

consumers = Table(
    "consumers",
    metadata,
    Column("name", String, primary_key=True),
    Column("cursor", Big, nullable=False),
    Column("version", Big, nullable=False),
    Column("owner", String),
    Column("lease_expires", Double),
    Column("updated_at", Double, nullable=False),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("key_id", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("body_hash", String, nullable=False),
    Column("search_id", String, nullable=False),
    Column("state", String, nullable=False),
    Column("boot_id", String, nullable=False),
    Column("status", Integer),
    Column("body", LargeBinary),
    Column("expires_at", Double, nullable=False),
    Index("ix_idempotency_expires_at", "expires_at"),
)

releases = Table(
    "releases",
    metadata,
    Column("release_id", String, primary_key=True),
    Column("state", String, nullable=False),
    Column("figures", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
)

activations = Table(
    "activations",
    metadata,
    Column("id", Big, primary_key=True, autoincrement=False),
    Column("release_id", String, nullable=False),
    Column("note", Text, nullable=False),
    Column("activated_at", Double, nullable=False),
)
"""Append-only; the newest row names the active release."""
