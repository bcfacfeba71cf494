"""Group commit: writes that arrive while one transaction commits share the next.

Nothing waits for company: a lone write is committed at once, and the batch grows only as fast as the disk
is slow. A write is a function of a transaction and a list of items, called once for each run of items that
are queued together; it gives back, for each item, a result or the `LogError` that its caller shall get. An
exception instead rolls the batch back, and every item is tried again by itself, so that one bad record
fails alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

from ramify.treelog.engine import connection_lost, foreign, store_error
from ramify.treelog.errors import LogClosed, LogDeadline, LogError, LogFull
from ramify.treelog.transaction import Transaction, write_transaction
from ramify.treelog.urls import Store

Item = TypeVar("Item")
Result = TypeVar("Result")
Write = Callable[[Transaction, Sequence[Item]], Awaitable[Sequence[Result | LogError]]]

RECONNECT = (0.0, 0.1, 0.5, 1.0)
"""Seconds before each new attempt of a batch whose connection broke. A longer outage is the caller's to wait for."""


@dataclass(frozen=True, slots=True)
class _Job:
    write: Write[Any, Any]
    item: Any
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

    async def submit(self, write: Write[Item, Result], prepare: Callable[[], Awaitable[Item]]) -> Result:
        """Queue what `prepare` gives and return its result once that is committed.

        A caller cancelled while its item is being prepared has written nothing; cancelled later, or timed
        out with `LogDeadline`, its item is still written whole. `LogFull`: no room before the deadline,
        nothing written.
        """
        if self._closing:
            raise LogClosed("the log is closed")
        due = asyncio.get_running_loop().time() + self._deadline
        self._open += 1
        self._idle.clear()
        try:
            job = await self._enqueue(write, prepare, due)
        except BaseException:
            self._settled()
            raise
        try:
            async with asyncio.timeout_at(due):
                result: Result = await asyncio.shield(job.done)
        except TimeoutError as error:
            raise LogDeadline(f"not committed within {self._deadline:g} s; it may still be") from error
        return result

    async def _enqueue(
        self, write: Write[Item, Result], prepare: Callable[[], Awaitable[Item]], due: float
    ) -> _Job:
        try:
            async with asyncio.timeout_at(due):
                await self._slots.acquire()
        except TimeoutError as error:
            raise LogFull(
                f"no room in the queue of writes for {self._deadline:g} s; nothing was written"
            ) from error
        try:
            job = _Job(write, await prepare(), asyncio.get_running_loop().create_future())
        except BaseException:
            self._slots.release()
            raise
        job.done.add_done_callback(self._landed)
        self._queue.put_nowait(job)
        self.pending += 1
        return job

    def _landed(self, done: asyncio.Future[Any]) -> None:
        self.pending -= 1
        done.exception()  # seen, even where its caller is gone
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

    async def _commit(self, batch: Sequence[_Job], delays: Sequence[float] = RECONNECT) -> None:
        try:
            results = await self._transact(batch)
        except Exception as error:  # whatever it is, its callers must hear of it
            await self._recover(batch, error, delays)
            return
        for job, result in zip(batch, results, strict=True):
            _settle(job, result)

    async def _recover(self, batch: Sequence[_Job], error: Exception, delays: Sequence[float]) -> None:
        lost = connection_lost(error)
        if lost and delays:
            # Should the lost commit have landed, each write knows its own traces and is not done twice.
            await asyncio.sleep(delays[0])
            await self._commit(batch, delays[1:])
        elif lost or len(batch) == 1:
            _fail(batch, store_error(self._store, error) if foreign(error) else error, error)
        else:
            for job in batch:
                await self._commit([job], delays)

    async def _transact(self, batch: Sequence[_Job]) -> list[Any]:
        results: list[Any] = []
        async with write_transaction(self._engine, self._clock) as transaction:
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
