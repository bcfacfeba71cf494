"""The searches on a clock that share one policy: how many answers each should write at once, and what its seconds are
worth in tokens.

A step of the engine, one more token of each of n answers, takes about a + b·n seconds (`StepTimes`). Suppose that each
of s searches has m answers in flight, n = s·m, of L tokens each. In T seconds a search then lands

    m · (T / (L · (a + b·n)) - 1/2)

of them, since those that are cut off at the end are half written. More at once make better use of the steps and lose
more at the end. The sum over all searches is largest at a + b·n = √(2·a·T / L).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

FORGETTING = 0.998
"""Weight of a step's time after one more step: the last 500 steps count."""
SPREAD = 0.25
"""Least standard deviation of the sequences in those steps, as a share of their mean, for a new slope."""


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of a step by the sequences that it advances: `fixed` + `each` · n."""

    fixed: float
    each: float

    def of(self, sequences: float) -> float:
        return self.fixed + self.each * sequences


class StepTimes:
    """A running fit of `StepTime` (least squares with exponential forgetting)."""

    def __init__(self) -> None:
        self._weight = self._n = self._nn = self._t = self._nt = 0.0
        self._shape: StepTime | None = None

    def see(self, sequences: int, seconds: float) -> None:
        """Take in one step."""
        self._weight = self._weight * FORGETTING + 1.0
        self._n = self._n * FORGETTING + sequences
        self._nn = self._nn * FORGETTING + sequences * sequences
        self._t = self._t * FORGETTING + seconds
        self._nt = self._nt * FORGETTING + sequences * seconds
        n, t = self._n / self._weight, self._t / self._weight
        variance = self._nn / self._weight - n * n
        if variance > (SPREAD * n) ** 2:
            each = (self._nt / self._weight - n * t) / variance
            if 0 < each * n < t:
                self._shape = StepTime(t - each * n, each)

    @property
    def fit(self) -> StepTime | None:
        """The fit; `None` before there is one. While recent steps hardly differ in their sequences, the last shape is
        kept, and only the pace follows."""
        if self._shape is None:
            return None
        pace = self._t / (self._weight * self._shape.of(self._n / self._weight))
        return StepTime(self._shape.fixed * pace, self._shape.each * pace)


class Crowd:
    """Searches on a clock that use one policy at the same time."""

    def __init__(self, step_time: Callable[[], StepTime | None]) -> None:
        """step_time: the policy's, as far as it is known."""
        self._step_time = step_time
        self._searches = 0
        self._length = 0.0
        """Tokens of an answer, as a search told last; 0 if none has."""

    @asynccontextmanager
    async def joined(self) -> AsyncIterator[None]:
        """Count a search for the length of an `async with`, which is entered once those that begin in the same moment
        count as well."""
        self._searches += 1
        try:
            await asyncio.sleep(0)
            yield
        finally:
            self._searches -= 1

    def share(self, seconds: float, length: float, longest: int) -> float:
        """Return the most draws that a search should have in flight: at least 1, and infinity before the time of a step
        is known.

        seconds: its whole time. length: tokens of its answers; 0 if it has none: that of another search counts then.
        longest: the cap of its answers, which counts as long as no search has one, if so long a one could land."""
        self._length = length or self._length
        time = self._step_time()
        if time is None:
            return math.inf
        tokens = self._tokens(time, seconds, longest)
        return _share(time, seconds, tokens, max(1, self._searches))

    def worth(self, seconds: float, most: int, longest: int) -> float | None:
        """Return about how many tokens the answers have that a search which begins now would land in so many seconds,
        at least 0, with its `share` in flight and `most` draws at most. `None` before the time of a step is known.
        longest: as in `share`."""
        time = self._step_time()
        if time is None:
            return None
        searches, length = self._searches + 1, self._tokens(time, seconds, longest)
        draws = min(most, _share(time, seconds, length, searches))
        return max(0.0, draws * (seconds / time.of(draws * searches) - length / 2))

    def _tokens(self, time: StepTime, seconds: float, longest: int) -> float:
        """Return how many tokens an answer is taken to have."""
        return self._length or min(longest, seconds / time.of(1))


def _share(time: StepTime, seconds: float, length: float, searches: int) -> float:
    """Return how many draws each of some searches should have in flight, by the formula above; at least 1."""
    best = (math.sqrt(2 * time.fixed * seconds / length) - time.fixed) / time.each
    return max(1.0, best // searches)
