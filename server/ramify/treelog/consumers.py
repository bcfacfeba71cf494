"""Registered readers: a cursor each, moved by compare-and-set, and a lease that keeps a second reader off.

A lease is its owner's and its API key's, and runs by a clock that nobody's wall clock can move: PostgreSQL's own, which
all servers on one log share, or this process's steady one, since SQLite has one writer. `steady` is that clock, in
seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ramify.treelog.errors import BadCursor, ConsumerConflict
from ramify.treelog.records import Consumer
from ramify.treelog.schema import consumers, counter
from ramify.treelog.writer import Transaction

_ROWS = select(consumers, select(counter.c.last).scalar_subquery().label("high_water"))
"""Every field of a `Consumer`."""


async def put(
    tx: Transaction,
    name: str,
    *,
    version: int | None,
    cursor: int | None,
    owner: str | None,
    lease_seconds: float | None,
    rewind: bool,
    key_id: str,
    steady: Callable[[], float],
) -> Consumer:
    """Register or change a consumer; see `TreeLog.put_consumer`."""
    now = await lease_time(tx.conn, steady)
    known = await _read(tx.conn, name, now)
    _check_version(name, known, version)
    if known and (known.owner != owner or known.key_id != key_id):
        _check_free(known)
    if cursor is not None:
        _check_cursor(known, cursor, tx.last, rewind)
    before = known or Consumer(name, 0, 0, None, None, now, key_id)
    after = replace(
        before,
        cursor=before.cursor if cursor is None else cursor,
        version=before.version + 1,
        owner=owner if lease_seconds else None,
        lease_expires=now + lease_seconds if owner and lease_seconds else None,
        updated_at=now,
        key_id=key_id,
        high_water=tx.last,
    )
    write = update(consumers).where(consumers.c.name == name) if known else insert(consumers)
    await tx.conn.execute(write.values({column.name: getattr(after, column.name) for column in consumers.c}))
    return after


def _check_version(name: str, known: Consumer | None, version: int | None) -> None:
    present = known.version if known else None
    if version != present:
        has = "is not registered" if present is None else f"is at version {present}"
        given = "no version" if version is None else f"version {version}"
        raise ConsumerConflict(f"consumer {name} {has}, {given} was given: read it again", "stale_version")


def _check_free(known: Consumer) -> None:
    if known.owner and known.lease_expires:
        by = f"{known.owner} (API key {known.key_id})" if known.key_id else known.owner
        message = f"consumer {known.name} is leased to {by} until {known.lease_expires:.0f}"
        raise ConsumerConflict(message, "lease_held")


def _check_cursor(known: Consumer | None, cursor: int, high_water: int, rewind: bool) -> None:
    if not 0 <= cursor <= high_water:
        raise BadCursor(f"the log holds 0 to {high_water}, got cursor {cursor}")
    if known and cursor < known.cursor and not rewind:
        raise BadCursor(f"consumer {known.name} is at {known.cursor}; going back to {cursor} needs `rewind`")


async def lease_time(conn: AsyncConnection, steady: Callable[[], float]) -> float:
    """Return the time that leases run by, in Unix seconds."""
    if conn.dialect.name == "postgresql":
        clock = select(func.extract("epoch", func.clock_timestamp()))
        return float((await conn.execute(clock)).scalar_one())
    return steady()


async def remove(tx: Transaction, name: str, steady: Callable[[], float]) -> bool:
    """Forget a consumer; False if there is none. Raises `ConsumerConflict` while it is leased."""
    known = await _read(tx.conn, name, await lease_time(tx.conn, steady))
    if known is None:
        return False
    _check_free(known)
    await tx.conn.execute(delete(consumers).where(consumers.c.name == name))
    return True


async def get(engine: AsyncEngine, name: str, steady: Callable[[], float]) -> Consumer | None:
    async with engine.connect() as conn:
        return await _read(conn, name, await lease_time(conn, steady))


async def every(engine: AsyncEngine, steady: Callable[[], float]) -> list[Consumer]:
    """Return all consumers by name."""
    async with engine.connect() as conn:
        now = await lease_time(conn, steady)
        rows = (await conn.execute(_ROWS.order_by(consumers.c.name))).mappings()
        return [_lapsed(Consumer(**row), now) for row in rows]


async def _read(conn: AsyncConnection, name: str, now: float) -> Consumer | None:
    row = (await conn.execute(_ROWS.where(consumers.c.name == name))).mappings().one_or_none()
    return None if row is None else _lapsed(Consumer(**row), now)


def _lapsed(consumer: Consumer, now: float) -> Consumer:
    """Return the consumer without its lease if that has run out."""
    if consumer.lease_expires is None or consumer.lease_expires > now:
        return consumer
    return replace(consumer, owner=None, lease_expires=None)
