"""Registered readers: a cursor each, moved by compare-and-set, and a lease that keeps a second reader off.

A lease is its owner's and its API key's, and runs by a clock that nobody's wall clock can move: PostgreSQL's own, which
all servers on one log share, or this process's steady one, since SQLite has one writer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ramify.treelog.errors import BadCursor, LeaseHeld, LogError, StaleVersion
from ramify.treelog.records import Consumer
from ramify.treelog.schema import consumers
from ramify.treelog.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Put:
    """A change to a consumer; see `TreeLog.put_consumer`."""

    name: str
    version: int | None
    cursor: int | None
    owner: str | None
    lease_seconds: float | None
    rewind: bool
    key_id: str
    clock: Callable[[], float]
    """Steady; see `lease_time`."""


@dataclass(frozen=True, slots=True)
class Removal:
    """A consumer to forget."""

    name: str
    clock: Callable[[], float]
    """As in `Put`."""


async def put(tx: Transaction, items: Sequence[Put]) -> list[Consumer | LogError]:
    return [await _put(tx, item) for item in items]


async def _put(tx: Transaction, item: Put) -> Consumer | LogError:
    now = await lease_time(tx.conn, item.clock)
    found = await _read(tx.conn, item.name, now)
    if refusal := _refusal(item, found, tx.last):
        return refusal
    before = found or Consumer(item.name, 0, 0, None, None, now, item.key_id)
    after = replace(
        before,
        cursor=before.cursor if item.cursor is None else item.cursor,
        version=before.version + 1,
        owner=item.owner if item.lease_seconds else None,
        lease_expires=now + item.lease_seconds if item.owner and item.lease_seconds else None,
        updated_at=now,
        key_id=item.key_id,
    )
    values = {name: getattr(after, name) for name in Consumer.__slots__}
    if found is None:
        await tx.conn.execute(insert(consumers).values(values))
    else:
        await tx.conn.execute(update(consumers).where(consumers.c.name == item.name).values(values))
    return after


def _refusal(item: Put, found: Consumer | None, high_water: int) -> LogError | None:
    version = found.version if found else None
    if item.version != version:
        has = "is not registered" if version is None else f"is at version {version}"
        given = "no version" if item.version is None else f"version {item.version}"
        return StaleVersion(f"consumer {item.name} {has}, {given} was given: read it again", version)
    if found and (found.owner != item.owner or found.key_id != item.key_id) and (held := _held(found)):
        return held
    if item.cursor is None:
        return None
    if not 0 <= item.cursor <= high_water:
        return BadCursor(f"the log holds 0 to {high_water}, got cursor {item.cursor}")
    if found and item.cursor < found.cursor and not item.rewind:
        return BadCursor(
            f"consumer {item.name} is at {found.cursor}; going back to {item.cursor} needs `rewind`"
        )
    return None


def _held(found: Consumer) -> LeaseHeld | None:
    if not found.owner or not found.lease_expires:
        return None
    by = f"{found.owner} (API key {found.key_id})" if found.key_id else found.owner
    message = f"consumer {found.name} is leased to {by} until {found.lease_expires:.0f}"
    return LeaseHeld(message, found.owner, found.lease_expires)


async def lease_time(conn: AsyncConnection, steady: Callable[[], float]) -> float:
    """The time that leases run by, in Unix seconds."""
    if conn.dialect.name == "postgresql":
        clock = select(func.extract("epoch", func.clock_timestamp()))
        return float((await conn.execute(clock)).scalar_one())
    return steady()


async def remove(tx: Transaction, items: Sequence[Removal]) -> list[bool | LogError]:
    return [await _remove(tx, item) for item in items]


async def _remove(tx: Transaction, item: Removal) -> bool | LogError:
    found = await _read(tx.conn, item.name, await lease_time(tx.conn, item.clock))
    if found is None:
        return False
    if held := _held(found):
        return held
    await tx.conn.execute(delete(consumers).where(consumers.c.name == item.name))
    return True


async def get(engine: AsyncEngine, name: str, clock: Callable[[], float]) -> Consumer | None:
    async with engine.connect() as conn:
        return await _read(conn, name, await lease_time(conn, clock))


async def every(engine: AsyncEngine, clock: Callable[[], float]) -> list[Consumer]:
    """By name."""
    async with engine.connect() as conn:
        now = await lease_time(conn, clock)
        rows = (await conn.execute(select(consumers).order_by(consumers.c.name))).mappings()
        return [_lapsed(Consumer(**row), now) for row in rows]


async def _read(conn: AsyncConnection, name: str, now: float) -> Consumer | None:
    row = (await conn.execute(select(consumers).where(consumers.c.name == name))).mappings().one_or_none()
    return None if row is None else _lapsed(Consumer(**row), now)


def _lapsed(consumer: Consumer, now: float) -> Consumer:
    """A lease that has run out is no lease."""
    if consumer.lease_expires is None or consumer.lease_expires > now:
        return consumer
    return replace(consumer, owner=None, lease_expires=None)
