"""Bounded concurrency in front of one engine."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ramify.engines.errors import EngineBusy


class EngineLimiter:
    """A counting semaphore, first come first served, that takes several units at once and bounds its queue.

    The engine schedules its own running batch; slots above that size only keep its queue short and ours fair.
    """

    def __init__(self, limit: int, max_waiting: int) -> None:
        self.limit = limit
        self.max_waiting = max_waiting
        self.taken = 0
        self._queue: deque[tuple[asyncio.Future[None], int]] = deque()
        self._queued = 0

    @property
    def waiting(self) -> int:
        """Units that wait."""
        return self._queued

    @asynccontextmanager
    async def slots(self, units: int) -> AsyncIterator[None]:
        """Hold `units` for as long as the block runs. Raises as `acquire` does."""
        taken = await self.acquire(units)
        try:
            yield
        finally:
            self.release(taken)

    async def acquire(self, units: int) -> int:
        """Take `units` (at most the limit), waiting for them; returns what was taken, for `release`.

        Raises `EngineBusy` at once when more than `max_waiting` units would wait."""
        units = min(units, self.limit)
        if not self._queue and self.taken + units <= self.limit:
            self.taken += units
            return units
        if self._queued + units > self.max_waiting:
            raise EngineBusy(
                f"{self._queued} requests wait for the engine already (at most {self.max_waiting})"
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (turn, units)
        self._queue.append(entry)
        self._queued += units
        try:
            await turn
        except asyncio.CancelledError:
            if entry in self._queue:
                self._queue.remove(entry)
                self._queued -= units
            elif turn.done() and not turn.cancelled():  # our turn came in the same moment: hand it on
                self.taken -= units
            self._wake()
            raise
        return units

    def release(self, units: int) -> None:
        self.taken -= units
        self._wake()

    def _wake(self) -> None:
        while self._queue and self.taken + self._queue[0][1] <= self.limit:
            turn, units = self._queue.popleft()
            self._queued -= units
            if not turn.done():
                self.taken += units
                turn.set_result(None)
