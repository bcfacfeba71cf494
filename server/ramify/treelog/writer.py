"""Group commit: writes that arrive while one transaction commits share the next.

Nothing waits for company: a lone write is committed at once, and the batch grows only as fast as the disk is slow. A
write is a function of a transaction. It raises `LogError` before it has changed anything, and then its caller alone
hears of it. Any other exception rolls the batch back, and each write is tried again by itself, so that one bad record
fails alone. Appended trees go to one function as a list, which needs a few statements however many they are.

**The lock last** (2026-11-29). One write transaction holds the counter's lock at a time, whichever server writes, so a
fleet's appends are as fast as that is short. Transactions that only append read before they take it. What they read may
be untrue by then, since another server logged one of the trees: the store refuses the second row of a tree, and the
batch is rolled back and tried again, its lock taken first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ramify.treelog.errors import LogError, StoreError
from ramify.treelog.schema import counter
from ramify.treelog.store import Store, connection_lost, foreign, log_error

RECONNECT = (0.0, 0.1, 0.5, 1.0)
"""Seconds before each new attempt of a batch whose connection broke. A longer outage is the caller's to wait for."""


@dataclass(slots=True)
class Transaction:
    """A write transaction and the counter of every `seq`. It is the one of the store that holds the lock, whoever else
    writes there; until it holds it, it may only read."""

    conn: AsyncConnection
    now: float
    """Unix seconds, as of holding the lock, or of its begin if it takes the lock last."""
    last: int
    """The last `seq` given out: the high-water mark that this transaction will leave."""
    locked: bool = True
    """False until it holds the lock, if it takes it last; `last` is not known before."""
    written: int = 0
    """`last` as the counter's row says it."""

    def draw(self) -> int:
        """Take the next `seq`. A rolled-back one is drawn again, a committed one never, even once deleted."""
        assert self.locked
        self.last += 1
        return self.last

    async def draw_many(self, number: int) -> range:
        """Take so many in a row. If the lock is not held yet, the same statement takes it."""
        if self.locked:
            self.last += number
        else:
            added = update(counter).values(last=counter.c.last + number).returning(counter.c.last)
            self.last = self.written = (await self.conn.execute(added)).scalar_one()
            self.locked = True
        return range(self.last - number + 1, self.last + 1)

    async def lock(self) -> None:
        """Wait until no other transaction holds the lock, and hold it until the commit."""
        last = (await self.conn.execute(select(counter.c.last).with_for_update())).scalar_one()
        self.last = self.written = last
        self.locked = True


Item = TypeVar("Item")
Result = TypeVar("Result")
Write = Callable[[Transaction], Awaitable[Result]]
"""One write. It may run twice, after a rollback or a lost connection."""
BatchWrite = Callable[[Transaction, Sequence[Item]], Awaitable[Sequence[Result | LogError]]]
"""Many writes at once: for each item its result, or the error that its caller shall get."""


@asynccontextmanager
async def write_transaction(
    engine: AsyncEngine, clock: Callable[[], float], *, lock_first: bool = True
) -> AsyncIterator[Transaction]:
    """Commit durably on leaving; roll back on any error.

    The lock on the counter's row (on SQLite, BEGIN IMMEDIATE) is held to the commit, from the first statement or from
    the first number drawn: numbers are drawn in the order in which they become visible, so no reader can pass a number
    that is still to come.
    """
    async with engine.begin() as conn:
        transaction = Transaction(conn, clock(), 0, locked=False)
        if lock_first:
            await transaction.lock()
            transaction.now = clock()
        yield transaction
        if transaction.last != transaction.written:
            await conn.execute(update(counter).values(last=transaction.last))


async def touch(tx: Transaction) -> None:
    """Write the counter as it is, so that the commit proves that the store takes writes."""
    await tx.conn.execute(update(counter).values(last=tx.last))


async def one_by_one(tx: Transaction, writes: Sequence[Write[Result]]) -> list[Result | LogError]:
    """Run each write; a refusal is its own."""
    results: list[Result | LogError] = []
    for write in writes:
        try:
            results.append(await write(tx))
        except LogError as refusal:
            results.append(refusal)
    return results


@dataclass(frozen=True, slots=True)
class _Job:
    """A queued item, and the future that its caller awaits."""

    write: BatchWrite[Any, Any]
    item: Any
    locks_last: bool
    done: asyncio.Future[Any]


class Writer:
    """The one writing task of a log. Bound to the event loop in which it was made."""

    def __init__(
        self,
        engine: AsyncEngine,
        store: Store,
        clock: Callable[[], float],
        *,
        max_pending: int,
        max_batch: int,
        deadline: float,
    ) -> None:
        self._engine = engine
        self._store = store
        self._clock = clock
        self._max_batch = max_batch
        self._deadline = deadline
        self._slots = asyncio.Semaphore(max_pending)
        self._queue: asyncio.Queue[_Job] = asyncio.Queue()
        self._open = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False
        self.commits = 0
        """Transactions committed."""
        self.pending = 0
        """Writes that wait for their commit."""
        self._task = asyncio.create_task(self._run(), name="ramify-treelog-writer")

    async def submit(
        self,
        write: BatchWrite[Item, Result],
        prepare: Callable[[], Awaitable[Item]],
        *,
        locks_last: bool = False,
    ) -> Result:
        """Queue the item that `prepare` returns, and return its result once that is committed.

        locks_last: True if `write` takes the lock itself, and until then only reads; what it reads then and the store
        would not refuse must be true for good.
        A caller cancelled while its item is being prepared has written nothing; cancelled or late after that, its item
        is still written whole. Raises `StoreError` if there is no room before the deadline, so that nothing was
        written, or no commit before it.
        """
        if self._closing:
            raise LogError("the log is closed")
        due = asyncio.get_running_loop().time() + self._deadline
        self._open += 1
        self._idle.clear()
        try:
            job = await self._enqueue(write, prepare, locks_last, due)
        except BaseException:
            self._settled()
            raise
        try:
            async with asyncio.timeout_at(due):
                result: Result = await asyncio.shield(job.done)
        except TimeoutError as error:
            raise StoreError(f"not committed within {self._deadline:g} s; it may still be") from error
        return result

    async def _enqueue(
        self,
        write: BatchWrite[Item, Result],
        prepare: Callable[[], Awaitable[Item]],
        locks_last: bool,
        due: float,
    ) -> _Job:
        try:
            async with asyncio.timeout_at(due):
                await self._slots.acquire()
        except TimeoutError as error:
            raise StoreError(
                f"no room in the queue of writes for {self._deadline:g} s; nothing was written"
            ) from error
        try:
            item = await prepare()
            job = _Job(write, item, locks_last, asyncio.get_running_loop().create_future())
        except BaseException:
            self._slots.release()
            raise
        job.done.add_done_callback(self._landed)
        self._queue.put_nowait(job)
        self.pending += 1
        return job

    def _landed(self, done: asyncio.Future[Any]) -> None:
        self.pending -= 1
        done.exception()  # seen, even if its caller is gone
        self._slots.release()
        self._settled()

    def _settled(self) -> None:
        self._open -= 1
        if not self._open:
            self._idle.set()

    async def close(self) -> None:
        """Refuse new writes, commit those that wait, stop."""
        self._closing = True
        await self._idle.wait()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            batch = [await self._queue.get()]
            while len(batch) < self._max_batch and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            await self._commit(batch)

    async def _commit(
        self, batch: Sequence[_Job], delays: Sequence[float] = RECONNECT, *, lock_first: bool = False
    ) -> None:
        lock_first = lock_first or not all(job.locks_last for job in batch)
        try:
            results = await self._transact(batch, lock_first)
        except Exception as error:  # whatever it is, its callers must hear of it
            await self._recover(batch, error, delays, lock_first)
            return
        for job, result in zip(batch, results, strict=True):
            _settle(job, result)

    async def _recover(
        self, batch: Sequence[_Job], error: Exception, delays: Sequence[float], lock_first: bool
    ) -> None:
        lost = connection_lost(error)
        if lost and delays:
            # Should the lost commit have landed, or land yet: a tree or verdict that is there already, once its lock is
            # free, is not written twice.
            await asyncio.sleep(delays[0])
            await self._commit(batch, delays[1:], lock_first=True)
        elif lost or (lock_first and len(batch) == 1):
            _fail(batch, log_error(self._store, error) if foreign(error) else error, error)
        else:
            for job in batch:
                await self._commit([job], delays, lock_first=True)

    async def _transact(self, batch: Sequence[_Job], lock_first: bool) -> list[Any]:
        results: list[Any] = []
        async with write_transaction(self._engine, self._clock, lock_first=lock_first) as transaction:
            for write, jobs in groupby(batch, key=lambda job: job.write):
                results += await write(transaction, [job.item for job in jobs])
        self.commits += 1
        return results


def _fail(batch: Sequence[_Job], error: Exception, cause: Exception) -> None:
    if error is not cause:
        error.__cause__ = cause
    for job in batch:
        _settle(job, error)


def _settle(job: _Job, result: Any) -> None:
    """Tell a write how it ended, unless nobody can hear of it any more."""
    if job.done.done():
        return
    if isinstance(result, Exception):
        job.done.set_exception(result)
    else:
        job.done.set_result(result)
