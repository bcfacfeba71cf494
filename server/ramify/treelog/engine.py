"""The connections: everything in which SQLite and PostgreSQL differ."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from ramify.treelog.errors import BadEntry, LogError, StoreError
from ramify.treelog.urls import Store

BUSY_SECONDS = 10
_READERS = 4


def writer_engine(store: Store) -> AsyncEngine:
    """One connection, every transaction of which may write; a commit returns once it is on disk."""
    if store.kind == "sqlite":
        return _sqlite(
            store, size=1, begin="BEGIN IMMEDIATE", pragmas=("journal_mode=WAL", "synchronous=FULL")
        )
    return _postgresql(store, size=1, settings={"synchronous_commit": "on"})


def reader_engine(store: Store) -> AsyncEngine:
    """Connections that cannot write."""
    if store.kind == "sqlite":
        return _sqlite(store, size=_READERS, begin="BEGIN", pragmas=("query_only=ON",))
    return _postgresql(store, size=_READERS, settings={"default_transaction_read_only": "on"})


def _sqlite(store: Store, *, size: int, begin: str, pragmas: tuple[str, ...]) -> AsyncEngine:
    engine = create_async_engine(
        store.url, pool_size=size, max_overflow=0, connect_args={"timeout": BUSY_SECONDS}
    )

    def connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver opens no transactions of its own: `begin` below does
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()
        # A flipped bit in one text must not make its whole page of rows unreadable.
        connection.driver_connection.text_factory = _lenient

    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine.sync_engine, "connect", connect)
    event.listen(engine.sync_engine, "begin", start)
    return engine


def _lenient(text: bytes) -> str:
    return text.decode("utf-8", "replace")


def _postgresql(store: Store, *, size: int, settings: dict[str, str]) -> AsyncEngine:
    common = {
        "application_name": "ramify",
        # A writer that stops in the middle of a batch must not hold all others up for ever.
        "idle_in_transaction_session_timeout": "60000",
    }
    return create_async_engine(
        store.url,
        pool_size=size,
        max_overflow=0,
        pool_pre_ping=True,
        connect_args={"timeout": 10, "command_timeout": 60, "server_settings": common | settings},
    )


def connection_lost(error: BaseException | None) -> bool:
    """Whether the database went away, so that a new connection may do better."""
    while error is not None:
        state = str(getattr(error, "sqlstate", None) or "")
        if isinstance(error, OSError) or state.startswith(_GONE):
            return True
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            return True
        error = error.__cause__
    return False


_GONE = ("08", "57P", "25P03")
"""SQLSTATEs: connection exceptions, shutdowns, idle in a transaction for too long."""


@contextmanager
def translated(store: Store) -> Iterator[None]:
    """Turn the drivers' errors into `StoreError`; ours pass."""
    try:
        yield
    except LogError:
        raise
    except Exception as error:
        if not foreign(error):
            raise
        raise store_error(store, error) from error


def foreign(error: BaseException) -> bool:
    """Whether an error is a database's: SQLAlchemy's, a socket's, or a value out of the driver's range."""
    return isinstance(error, SQLAlchemyError | OSError | OverflowError) or type(error).__module__.startswith(
        "asyncpg"
    )


def store_error(store: Store, error: BaseException) -> StoreError | BadEntry:
    """Without SQLAlchemy's statement and parameters, which hold people's prompts."""
    cause = getattr(error, "orig", None) or error
    if _unstorable(error, cause):
        return BadEntry(f"the log cannot hold a value of this entry: {type(cause).__name__}")
    return StoreError(f"the log at {store} failed: {type(cause).__name__}: {cause}")


def _unstorable(error: BaseException, cause: BaseException) -> bool:
    """Whether it is the value's fault (SQLSTATE 22: data exception, 23: integrity), so that no new try will help."""
    state = str(getattr(cause, "sqlstate", None) or "")
    return isinstance(error, OverflowError | DataError | IntegrityError) or state.startswith(("22", "23"))
