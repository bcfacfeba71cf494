"""Send small requests in groups, so that the engine computes them in one step and not in one each."""

from __future__ import annotations

import asyncio


class Pace:
    """Groups at least `interval` seconds apart: whoever comes after a pause goes at once, whoever comes sooner
    waits for the next group.

    An engine step costs milliseconds whatever is in it. Judgements come one by one as draws end, and sent one by one
    they took the value engine four times the processor time that the same work took in groups."""

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self._next = 0.0
        """When the next group may go, on the loop's clock."""
        self._group: asyncio.Future[None] | None = None

    async def turn(self) -> None:
        """Wait until this caller's group goes."""
        loop = asyncio.get_running_loop()
        if self._group is None:
            now = loop.time()
            if now >= self._next:
                self._next = now + self.interval
                return
            self._group = loop.create_future()
            loop.call_at(self._next, self._go)
        await asyncio.shield(self._group)

    def _go(self) -> None:
        assert self._group is not None
        self._next = asyncio.get_running_loop().time() + self.interval
        self._group.set_result(None)
        self._group = None
