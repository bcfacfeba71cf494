"""Expiry: old trees go, but never one that a registered consumer has still to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, exists, func, select

from ramify.treelog.errors import LogError
from ramify.treelog.idempotency import purge
from ramify.treelog.records import Expired
from ramify.treelog.schema import consumers, outcomes, trees
from ramify.treelog.transaction import Transaction
from ramify.treelog.trees import delete_trees

CHUNK = 256
"""Trees deleted in one transaction, so that appends are never held up for long."""


@dataclass(frozen=True, slots=True)
class Keep:
    """What stays: trees younger than `seconds`, and the `newest` ones. `None` keeps nothing by that rule."""

    seconds: float | None
    newest: int | None


async def expire(tx: Transaction, items: Sequence[Keep]) -> list[Expired | LogError]:
    """Delete the oldest `CHUNK` trees that no rule keeps, with their verdicts."""
    return [await _expire(tx, keep) for keep in items]


async def _expire(tx: Transaction, keep: Keep) -> Expired:
    # A verdict later than the slowest cursor keeps its tree.
    read = func.coalesce(select(func.min(consumers.c.cursor)).scalar_subquery(), tx.last)
    unread = exists().where(outcomes.c.tree_id == trees.c.tree_id, outcomes.c.seq > read)
    conditions: list[ColumnElement[bool]] = [trees.c.seq <= read, ~unread]
    if keep.seconds is not None:
        conditions.append(trees.c.created_at <= tx.now - keep.seconds)
    if keep.newest is not None:
        newest = select(trees.c.seq).order_by(trees.c.seq.desc()).limit(1).offset(keep.newest)
        conditions.append(trees.c.seq <= func.coalesce(newest.scalar_subquery(), 0))
    oldest = select(trees.c.tree_id).where(*conditions).order_by(trees.c.seq).limit(CHUNK)
    ids = list((await tx.conn.execute(oldest)).scalars())
    verdicts = await delete_trees(tx, ids) if ids else 0
    return Expired(len(ids), verdicts, await purge(tx))
