"""What a run is doing, since when, and how long its phases took: for people, probes and metrics."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class RunProgress:
    """Written by the loop, read by whoever asks."""

    clock: Callable[[], float] = time.monotonic
    """Seconds."""
    phase: str = "starting"
    done: int = 0
    """Of the phase, in searches or optimizer steps."""
    total: int = 0
    moved: float = 0.0
    """When something last progressed."""
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Of each phase, since this process began."""
    times: Counter[str] = field(default_factory=Counter)
    """That each phase was done to its end."""

    def __post_init__(self) -> None:
        self.moved = self.clock()

    @contextmanager
    def during(self, phase: str) -> Iterator[Callable[[], float]]:
        """A phase that lasts as long as the block; yields the seconds so far."""
        began = self.clock()
        self.entered(phase)
        try:
            yield lambda: self.clock() - began
        finally:
            self.seconds[phase] += self.clock() - began
        self.times[phase] += 1

    def entered(self, phase: str) -> None:
        """Entering a phase again, after a failure, is no progress."""
        if phase != self.phase:
            self.moved = self.clock()
        self.phase, self.done, self.total = phase, 0, 0

    def progressed(self, done: int, total: int) -> None:
        self.done, self.total, self.moved = done, total, self.clock()

    @property
    def idle(self) -> float:
        """Seconds without progress."""
        return self.clock() - self.moved
