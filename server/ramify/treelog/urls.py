"""Log URLs: which store one means, and how to show it to people."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from ramify.treelog.errors import BadUrl

EXAMPLES = "sqlite:///data/ramify.db or postgresql://user@host/database"


@dataclass(frozen=True, slots=True)
class Store:
    """One place where a log lives."""

    kind: Literal["sqlite", "postgresql"]
    url: URL
    """With the async driver filled in. Never print it: it may hold a password."""
    path: Path | None
    """The SQLite file; `None` on PostgreSQL."""

    def __str__(self) -> str:
        return str(self.path) if self.path else self.url.render_as_string(hide_password=True)


def parse(url: str) -> Store:
    """The store that a URL names. Raises `BadUrl`, whose message never holds the password."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # Not chained, and not quoted: what could not be parsed may hold a password.
        raise BadUrl(f"the log's URL cannot be read; it should look like {EXAMPLES}") from None
    if parsed.drivername in ("sqlite", "sqlite+aiosqlite"):
        return _sqlite(parsed)
    if parsed.drivername in ("postgres", "postgresql", "postgresql+asyncpg"):
        return _postgresql(parsed)
    raise BadUrl(f"the log's URL begins with {parsed.drivername!r}; it should look like {EXAMPLES}")


def _sqlite(url: URL) -> Store:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise BadUrl(
            "the log needs a SQLite file, as in sqlite:///data/ramify.db (four slashes for /an/absolute/path)"
        )
    if url.query:
        raise BadUrl(f"a SQLite log takes no URL parameters, got {sorted(url.query)[0]!r}")
    # The real path, so that two names of one file meet at one lock.
    path = Path(url.database).resolve()
    return Store("sqlite", URL.create("sqlite+aiosqlite", database=str(path)), path)


def _postgresql(url: URL) -> Store:
    if importlib.util.find_spec("asyncpg") is None:
        raise BadUrl("a PostgreSQL log needs asyncpg: pip install '.[postgres]' in a checkout")
    query = dict(url.query)
    if "sslmode" in query:  # libpq's name; asyncpg takes the same values as `ssl`
        query["ssl"] = query.pop("sslmode")
    return Store("postgresql", url.set(drivername="postgresql+asyncpg", query=query), None)
