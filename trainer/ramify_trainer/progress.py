"""The progress of a run, for people, probes and metrics; and the one thread that computes, which can be halted."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ramify import logs
from ramify_trainer import native_memory

Progress = Callable[[int, int], None]
"""Called with how much of some work is done, and of how much. What it raises ends the work."""


def log_to_stderr(level: str = "info") -> None:
    """Log one line an event from a level on, times in UTC, without the progress bars of libraries."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    logs.log_to_stderr("ramify_trainer", level)


@dataclass
class RunProgress:
    """The phase that a run is in, and the time of its phases: written by the loop, read by whoever asks."""

    clock: Callable[[], float] = time.monotonic
    """Seconds."""
    phase: str = "starting"
    done: int = 0
    """Progress in the phase, in searches or optimizer steps."""
    total: int = 0
    moved: float = 0.0
    """When something last progressed."""
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Seconds in each phase, since this process began."""
    times: Counter[str] = field(default_factory=Counter)
    """Number of times that each phase was done to its end."""

    def __post_init__(self) -> None:
        self.moved = self.clock()

    @contextmanager
    def during(self, phase: str) -> Iterator[Callable[[], float]]:
        """Be in a phase as long as the block lasts; yield a function that returns the seconds so far."""
        began = self.clock()
        self.entered(phase)
        try:
            yield lambda: self.clock() - began
        finally:
            self.seconds[phase] += self.clock() - began
        self.times[phase] += 1

    def entered(self, phase: str) -> None:
        """Begin a phase. Beginning the same one again, after a failure, is no progress."""
        if phase != self.phase:
            self.moved = self.clock()
        self.phase, self.done, self.total = phase, 0, 0

    def progressed(self, done: int, total: int) -> None:
        self.done, self.total, self.moved = done, total, self.clock()

    @property
    def place(self) -> tuple[str, int]:
        """The present phase, and how many were done before it: the same until it is done or another begins."""
        return self.phase, self.times.total()

    @property
    def idle(self) -> float:
        """Seconds without progress."""
        return self.clock() - self.moved


Done = TypeVar("Done")


def _done(work: Callable[..., Done], *arguments: Any) -> Done:
    try:
        return work(*arguments)
    finally:
        native_memory.give_back()


class WorkCancelled(Exception):
    """The work was cancelled by whoever waited for it."""


class ComputeThread:
    """Work that is cancelled ends at its next `check`. What it has freed goes back to the system when it ends."""

    def __init__(self) -> None:
        native_memory.bound_caches()
        self._pool = ThreadPoolExecutor(1, "ramify-trainer")
        self._halt = threading.Event()

    async def run(self, work: Callable[..., Done], *arguments: Any) -> Done:
        """Return what `work` returns. If cancelled, tell the work to halt and wait until it has: two never run at
        once."""
        future = asyncio.get_running_loop().run_in_executor(self._pool, _done, work, *arguments)
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
