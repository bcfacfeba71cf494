"""One thread for what computes, so that the lease is renewed and questions are answered meanwhile.

It is always the same thread: torch's threads and its settings belong to the thread that uses them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Done = TypeVar("Done")


class WorkCancelled(Exception):
    """Whoever waited for the work has gone."""


class ComputeThread:
    """Work that is cancelled ends at its next `check`."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "ramify-trainer")
        self._halt = threading.Event()

    async def run(self, work: Callable[..., Done], *arguments: Any) -> Done:
        """What `work` returns. Cancelled, it tells the work to halt and waits until it has: two never run at once."""
        future = asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self._halt.set()
            await asyncio.wait({future})
            self._halt.clear()
            future.exception()
            raise

    def check(self) -> None:
        """Called by the work between two steps. Raises `WorkCancelled`."""
        if self._halt.is_set():
            raise WorkCancelled

    def close(self) -> None:
        """End the thread once its work has ended."""
        self._pool.shutdown(wait=False)
