"""The tables as they are now, beside the log's in one PostgreSQL database. Migrations only append."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    Table,
    text,
)

from ramify.treelog.schema import PlainText

SCRIPTS = Path(__file__).with_name("migrations")
VERSIONS = "fleet_version"
"""Table that says how far the migrations are."""
metadata = MetaData()

fleet = Table(
    "fleet",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("name", PlainText, nullable=False),
    Column("seen", Double, nullable=False),
    Column("since", Double, nullable=False),
    CheckConstraint("id = 1", name="one_fleet"),
)
"""One row, which every look at the fleet locks."""

epochs = Table(
    "epochs",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("release", PlainText, nullable=False),
    Column("content", PlainText, nullable=False),
    Column("state", PlainText, nullable=False),
    Column("mode", PlainText, nullable=False),
    Column("kind", PlainText, nullable=False),
    Column("note", PlainText, nullable=False),
    Column("asked_by", PlainText, nullable=False),
    Column("share", Double, nullable=False),
    Column("grace", Double, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("deadline", Double, nullable=False),
    Column("ended_at", Double),
    Column("error", PlainText),
    Index(
        "one_activation",
        text("(true)"),
        unique=True,
        postgresql_where=text("state IN ('preparing', 'committing', 'going_back')"),
    ),
)
"""Append-only but for state, end and error."""

replicas = Table(
    "replicas",
    metadata,
    Column("id", PlainText, primary_key=True),
    Column("address", PlainText, nullable=False),
    Column("version", PlainText, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("lease", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("loaded", BigInteger, nullable=False),
    Column("prepared", BigInteger, nullable=False),
    Column("serving", BigInteger, nullable=False),
    Column("work", PlainText),
    Column("failing", BigInteger, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("error", PlainText),
    Column("evicted", Boolean, nullable=False),
    Column("leaving", Boolean, nullable=False),
    Column("report", JSON(none_as_null=True)),
    Column("number", Integer),
    Column("admin", PlainText),
    Column("key_tokens", BigInteger),
    Column("demands", JSON, nullable=False),
    Column("shares", JSON(none_as_null=True)),
)
