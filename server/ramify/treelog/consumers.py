"""Registered readers: a cursor each, moved by compare-and-set, and a lease that keeps a second reader off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import delete, insert, select, update
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


async def put(tx: Transaction, items: Sequence[Put]) -> list[Consumer | LogError]:
    return [await _put(tx, item) for item in items]


async def _put(tx: Transaction, item: Put) -> Consumer | LogError:
    found = await _read(tx.conn, item.name, tx.now)
    if refusal := _refusal(item, found, tx.last):
        return refusal
    before = found or Consumer(item.name, 0, 0, None, None, tx.now)
    after = replace(
        before,
        cursor=before.cursor if item.cursor is None else item.cursor,
        version=before.version + 1,
        owner=item.owner if item.lease_seconds else None,
        lease_expires=tx.now + item.lease_seconds if item.owner and item.lease_seconds else None,
        updated_at=tx.now,
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
    if found and found.owner and found.lease_expires and found.owner != item.owner:
        message = f"consumer {item.name} is leased to {found.owner} until {found.lease_expires:.0f}"
        return LeaseHeld(message, found.owner, found.lease_expires)
    if item.cursor is None:
        return None
    if not 0 <= item.cursor <= high_water:
        return BadCursor(f"the log holds 0 to {high_water}, got cursor {item.cursor}")
    if found and item.cursor < found.cursor and not item.rewind:
        return BadCursor(
            f"consumer {item.name} is at {found.cursor}; going back to {item.cursor} needs `rewind`"
        )
    return None


async def remove(tx: Transaction, names: Sequence[str]) -> list[bool | LogError]:
    return [
        (await tx.conn.execute(delete(consumers).where(consumers.c.name == n))).rowcount > 0 for n in names
    ]


async def get(engine: AsyncEngine, name: str, now: float) -> Consumer | None:
    async with engine.connect() as conn:
        return await _read(conn, name, now)


async def every(engine: AsyncEngine, now: float) -> list[Consumer]:
    async with engine.connect() as conn:
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
