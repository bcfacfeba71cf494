"""Expiry: old trees go, but never one that a registered consumer has still to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncEngine

from ramify.treelog.errors import LogError
from ramify.treelog.idempotency import purge
from ramify.treelog.records import ExpiryCounts, LogSize
from ramify.treelog.schema import consumers, counter, outcomes, trees
from ramify.treelog.transaction import Transaction
from ramify.treelog.trees import delete_trees

CHUNK = 256
"""Trees deleted in one transaction, so that appends are never held up for long."""
_SIZE = func.length(trees.c.body)


@dataclass(frozen=True, slots=True)
class Keep:
    """What goes: trees at least `seconds` old, and those up to the seq `beyond`; all if neither is said. The `newest`
    trees stay in any case."""

    seconds: float | None
    newest: int | None
    beyond: int | None


async def expire(tx: Transaction, items: Sequence[Keep]) -> list[ExpiryCounts | LogError]:
    """Delete the oldest `CHUNK` trees that may go, with their verdicts."""
    return [await _expire(tx, keep) for keep in items]


async def _expire(tx: Transaction, keep: Keep) -> ExpiryCounts:
    oldest = select(trees.c.tree_id).where(*_may_go(keep, tx.now)).order_by(trees.c.seq).limit(CHUNK)
    ids = list((await tx.conn.execute(oldest)).scalars())
    verdicts = await delete_trees(tx, ids) if ids else 0
    return ExpiryCounts(len(ids), verdicts, await purge(tx))


async def expirable(engine: AsyncEngine, keep: Keep, now: float) -> LogSize:
    """Count and measure what `expire` would delete."""
    return await _figures(engine, *_may_go(keep, now))


async def figures(engine: AsyncEngine) -> LogSize:
    """Count and measure all trees."""
    return await _figures(engine)


async def _figures(engine: AsyncEngine, *conditions: ColumnElement[bool]) -> LogSize:
    found = select(func.count(), func.coalesce(func.sum(_SIZE), 0), func.min(trees.c.created_at))
    async with engine.connect() as conn:
        count, size, oldest = (await conn.execute(found.where(*conditions))).one()
    return LogSize(count, int(size), oldest)


async def beyond(engine: AsyncEngine, most: int) -> int:
    """The greatest seq of a tree that, with all newer ones, takes more than `most` bytes; 0 if there is none."""
    size = func.sum(_SIZE).over(order_by=trees.c.seq.desc()).label("size")
    summed = select(trees.c.seq, size).subquery()
    query = select(func.coalesce(func.max(summed.c.seq), 0)).where(summed.c.size > most)
    async with engine.connect() as conn:
        return int((await conn.execute(query)).scalar_one())


def _may_go(keep: Keep, now: float) -> list[ColumnElement[bool]]:
    last: Any = select(counter.c.last).scalar_subquery()
    read = func.coalesce(select(func.min(consumers.c.cursor)).scalar_subquery(), last)
    # A verdict later than the slowest cursor keeps its tree.
    unread = exists().where(outcomes.c.tree_id == trees.c.tree_id, outcomes.c.seq > read)
    conditions: list[ColumnElement[bool]] = [trees.c.seq <= read, ~unread]
    reasons: list[ColumnElement[bool]] = []
    if keep.seconds is not None:
        reasons.append(trees.c.created_at <= now - keep.seconds)
    if keep.beyond is not None:
        reasons.append(trees.c.seq <= keep.beyond)
    if reasons:
        conditions.append(or_(*reasons))
    if keep.newest is not None:
        newest = select(trees.c.seq).order_by(trees.c.seq.desc()).limit(1).offset(keep.newest)
        conditions.append(trees.c.seq <= func.coalesce(newest.scalar_subquery(), 0))
    return conditions
