"""The store of a log: which one a URL names, its connections, and the lock of its one writing process.

Everything in which SQLite and PostgreSQL differ is here.
"""

from __future__ import annotations

import fcntl
import importlib.util
import math
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from ramify.treelog.errors import LogError, StoreError

EXAMPLES = "sqlite:///data/ramify.db or postgresql://user@host/database"
BUSY_SECONDS = 10
_READERS = 4
IDLE, BETWEEN, QUESTIONS = 5, 2, 3
"""Seconds of silence after which one side of a connection asks whether the other is there, and between two such
questions; questions without an answer after which it gives the connection up."""
SILENCE = IDLE + BETWEEN * QUESTIONS
"""Seconds after which a connection to a side that has gone without a word is given up."""


@dataclass(frozen=True, slots=True)
class Store:
    """A place that holds one log."""

    kind: Literal["sqlite", "postgresql"]
    url: URL
    """With the async driver filled in. Never print it: it may hold a password."""
    path: Path | None
    """The SQLite file; `None` on PostgreSQL."""

    def __str__(self) -> str:
        return str(self.path) if self.path else self.url.render_as_string(hide_password=True)


def parse_url(url: str) -> Store:
    """Return the store that a URL names. Raises `LogError`, whose message never holds the password."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # Not chained, and not quoted: what could not be parsed may hold a password.
        raise LogError(f"the log's URL cannot be read; it should look like {EXAMPLES}") from None
    if parsed.drivername in ("sqlite", "sqlite+aiosqlite"):
        return _sqlite_store(parsed)
    if parsed.drivername in ("postgres", "postgresql", "postgresql+asyncpg"):
        return _postgresql_store(parsed)
    raise LogError(f"the log's URL begins with {parsed.drivername!r}; it should look like {EXAMPLES}")


def _sqlite_store(url: URL) -> Store:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise LogError(
            "the log needs a SQLite file, as in sqlite:///data/ramify.db (four slashes for /an/absolute/path)"
        )
    if url.query:
        raise LogError(f"a SQLite log takes no URL parameters, got {sorted(url.query)[0]!r}")
    # The real path, so that two names of one file meet at one lock.
    path = Path(url.database).resolve()
    return Store("sqlite", URL.create("sqlite+aiosqlite", database=str(path)), path)


def _postgresql_store(url: URL) -> Store:
    if importlib.util.find_spec("asyncpg") is None:
        raise LogError("a PostgreSQL log needs asyncpg: pip install '.[postgres]' in a checkout")
    query = dict(url.query)
    if "sslmode" in query:  # libpq's name; asyncpg takes the same values as `ssl`
        query["ssl"] = query.pop("sslmode")
    return Store("postgresql", url.set(drivername="postgresql+asyncpg", query=query), None)


def writer_engine(store: Store) -> AsyncEngine:
    """Open one connection whose transactions may write; a commit returns once it is on disk."""
    if store.kind == "sqlite":
        pragmas = ("journal_mode=WAL", "synchronous=FULL")
        return _sqlite_engine(store, size=1, begin="BEGIN IMMEDIATE", pragmas=pragmas)
    return _postgresql_engine(store, size=1, settings={"synchronous_commit": "on"})


def reader_engine(store: Store) -> AsyncEngine:
    """Open connections that cannot write."""
    if store.kind == "sqlite":
        return _sqlite_engine(store, size=_READERS, begin="BEGIN", pragmas=("query_only=ON",))
    return _postgresql_engine(store, size=_READERS, settings={"default_transaction_read_only": "on"})


def _sqlite_engine(store: Store, *, size: int, begin: str, pragmas: tuple[str, ...]) -> AsyncEngine:
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


def fleet_engine(store: Store, patience: float) -> AsyncEngine:
    """Open two connections of PostgreSQL for the rows of a fleet. patience: seconds for which one replica that stops
    in the middle of a transaction may hold up the others."""
    limit = {"idle_in_transaction_session_timeout": str(math.ceil(patience * 1000))}
    return _postgresql_engine(store, size=2, settings={"synchronous_commit": "on"} | limit)


def _postgresql_engine(store: Store, *, size: int, settings: dict[str, str]) -> AsyncEngine:
    common = {
        "application_name": "ramify",
        # A writer that stops in the middle of a batch must not hold all others up for ever.
        "idle_in_transaction_session_timeout": "60000",
        # Nor one that is cut off: the same as `_notice_silence`, for the database.
        "tcp_keepalives_idle": str(IDLE),
        "tcp_keepalives_interval": str(BETWEEN),
        "tcp_keepalives_count": str(QUESTIONS),
        "tcp_user_timeout": str(1000 * SILENCE),
    }
    engine = create_async_engine(
        store.url,
        pool_size=size,
        max_overflow=0,
        pool_pre_ping=True,
        connect_args={"timeout": 10, "command_timeout": 60, "server_settings": common | settings},
    )
    event.listen(engine.sync_engine, "connect", _notice_silence)
    return engine


def _notice_silence(connection: Any, _record: Any) -> None:
    """Have a connection break once the other side has said nothing for `SILENCE`, as after a partition or a loss of
    power. Otherwise a statement under way would wait for its answer, which may never come, until `command_timeout`."""
    at = connection.driver_connection._transport.get_extra_info("socket")  # asyncpg has no option for it
    if at.family == socket.AF_UNIX:
        return
    at.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    at.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, IDLE)
    at.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, BETWEEN)
    at.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, QUESTIONS)
    at.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * SILENCE)


def connection_lost(error: BaseException | None) -> bool:
    """Tell whether the database went away, so that a new connection may do better."""
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
    """Turn the drivers' errors into the log's own; those pass."""
    try:
        yield
    except LogError:
        raise
    except Exception as error:
        if not foreign(error):
            raise
        raise log_error(store, error) from error


def foreign(error: BaseException) -> bool:
    """Tell whether an error is a database's: SQLAlchemy's, a socket's, or a value out of the driver's range."""
    return isinstance(error, SQLAlchemyError | OSError | OverflowError) or type(error).__module__.startswith(
        "asyncpg"
    )


def log_error(store: Store, error: BaseException) -> LogError:
    """Describe a database's error without SQLAlchemy's statement and parameters, which hold people's prompts."""
    cause = getattr(error, "orig", None) or error
    if _unstorable(error, cause):
        return LogError(f"the log cannot hold a value of this entry: {type(cause).__name__}")
    return StoreError(f"the log at {store} failed: {type(cause).__name__}: {cause}")


def _unstorable(error: BaseException, cause: BaseException) -> bool:
    """Tell whether the value is at fault (SQLSTATE 22: data exception, 23: integrity), so that trying again is vain."""
    state = str(getattr(cause, "sqlstate", None) or "")
    return isinstance(error, OverflowError | DataError | IntegrityError) or state.startswith(("22", "23"))


class FileLock:
    """An advisory lock on `<database>.lock`. The kernel drops it when its holder dies, however that dies.

    A POSIX record lock (`lockf`), not `flock`: it belongs to the process alone, so engine processes that were forked
    from a killed server and outlive it for a while do not keep the next server out. Such a lock knows nothing of
    two holders in one process, and any close of the file drops it, so `_held` is asked first.
    """

    def __init__(self, database: Path) -> None:
        """Raise `LogError` if another `FileLock`, of this process or another, holds it."""
        self.path = database.with_name(database.name + ".lock")
        if self.path in _held:
            raise _locked(database, str(os.getpid()))
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._fd, 32).decode(errors="replace").strip()
            os.close(self._fd)
            raise _locked(database, holder) from error
        _held.add(self.path)
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let the next process in."""
        _held.discard(self.path)
        os.close(self._fd)


_held: set[Path] = set()
"""Locks of this process."""


def _locked(database: Path, holder: str) -> LogError:
    return LogError(
        f"process {holder or 'unknown'} is writing {database}; stop it, open the log read-only, "
        "or use PostgreSQL, which several servers can share"
    )
