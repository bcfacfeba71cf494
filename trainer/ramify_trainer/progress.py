"""The progress of a run, for people, probes and metrics."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ramify import logs

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
