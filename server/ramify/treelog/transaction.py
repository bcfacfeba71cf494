"""One write transaction, and the counter that every `seq` comes from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ramify.treelog.errors import LogError
from ramify.treelog.schema import counter


@dataclass(slots=True)
class Transaction:
    """What a write works with. While open it is the only one on the store, whoever else writes there."""

    conn: AsyncConnection
    now: float
    last: int
    """The last `seq` given out: the high-water mark that this transaction will leave."""

    def draw(self) -> int:
        """The next `seq`. A rolled-back one is drawn again, a committed one never, even once deleted."""
        self.last += 1
        return self.last


@asynccontextmanager
async def write_transaction(engine: AsyncEngine, clock: Callable[[], float]) -> AsyncIterator[Transaction]:
    """Commits, durably, on leaving; rolls back on any error.

    The lock on the counter's row (on SQLite, BEGIN IMMEDIATE) is held from the first statement to the
    commit: numbers are drawn in the order in which they become visible, so no reader can pass a number that
    is still to come.
    """
    async with engine.begin() as conn:
        before = (await conn.execute(select(counter.c.last).with_for_update())).scalar_one()
        transaction = Transaction(conn, clock(), before)  # the time as of holding the lock
        yield transaction
        if transaction.last != before:
            await conn.execute(update(counter).values(last=transaction.last))


async def touch(tx: Transaction, items: Sequence[None]) -> list[LogError | None]:
    """Write the counter as it is, so that the commit proves that the store takes writes."""
    await tx.conn.execute(update(counter).values(last=tx.last))
    return list(items)
