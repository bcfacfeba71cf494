"""Engine-seconds: the time in which an engine has work, shared out to the searches that gave it the work.

While n sequences are in an engine, each of them is charged 1/n of the time that goes by. So the charges of all searches
add up to the time in which the engine had anything to do, whatever runs beside what. Searches of one method that run by
themselves are charged that method's engine time exactly; among several methods it is an apportioning by sequences in
flight, blind to how much of a step each of them takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ramify.search.protocols import JudgingPolicy, Policy, Scorer, departs
from ramify.search.records import Action, Continuation, Departure, Hurdle, Sampling, Score
from ramify.search.tree import Tree


@dataclass(frozen=True, slots=True)
class GrownTree:
    """A searched tree, and the engines' time that it took; a server does not tell that (`None`)."""

    tree: Tree
    policy_seconds: float | None = None
    value_seconds: float | None = None
    """0 if the release has no engine for its values: its policy's engine gives them, and is charged."""


class Meter:
    """The work of one engine. `share` rises by dt/n while n sequences are in it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """clock: seconds."""
        self._clock = clock
        self._at = clock()
        self._inside = 0
        self._share = 0.0

    def share(self) -> float:
        """Return the seconds that a sequence which had been in the engine from the start would be charged by now."""
        now = self._clock()
        if self._inside:
            self._share += (now - self._at) / self._inside
        self._at = now
        return self._share

    def enter(self, sequences: int) -> None:
        self.share()
        self._inside += sequences


class Bill:
    """The seconds of one engine that one search is charged."""

    def __init__(self, meter: Meter) -> None:
        self.seconds = 0.0
        self._meter = meter

    @contextmanager
    def charged(self, sequences: int) -> Iterator[None]:
        """Charge for `sequences` that are in the engine for the length of a `with`."""
        began = self._meter.share()
        self._meter.enter(sequences)
        try:
            yield
        finally:
            self.seconds += sequences * (self._meter.share() - began)
            self._meter.enter(-sequences)


class MeteredPolicy:
    """A policy whose calls are charged."""

    def __init__(self, policy: Policy, bill: Bill) -> None:
        self._policy, self._bill = policy, bill

    @property
    def departs(self) -> bool:
        """See `search.protocols.DepartingPolicy`."""
        return departs(self._policy)

    async def sample(
        self,
        prefix: Sequence[int],
        sampling: Sampling,
        seeds: Sequence[int],
        **departures: Sequence[Departure | None],
    ) -> list[Continuation]:
        with self._bill.charged(len(seeds)):
            return await self._policy.sample(prefix, sampling, seeds, **departures)

    async def next_tokens(self, prefix: Sequence[int], k: int, temperature: float) -> list[Continuation]:
        with self._bill.charged(1):
            return await self._policy.next_tokens(prefix, k, temperature)


class MeteredJudgingPolicy(MeteredPolicy):
    """A policy that judges what it writes, its calls charged."""

    def __init__(self, policy: JudgingPolicy, bill: Bill) -> None:
        super().__init__(policy, bill)
        self._judging = policy

    async def write_on(
        self,
        prefix: Sequence[int],
        sampling: Sampling,
        seeds: Sequence[int],
        *,
        action: Action,
        hurdle: Hurdle,
        length: int,
        **departures: Sequence[Departure | None],
    ) -> list[Continuation]:
        with self._bill.charged(len(seeds)):
            return await self._judging.write_on(
                prefix, sampling, seeds, action=action, hurdle=hurdle, length=length, **departures
            )


class MeteredScorer:
    """A scorer whose calls are charged."""

    def __init__(self, scorer: Scorer, bill: Bill) -> None:
        self._scorer, self._bill = scorer, bill

    async def score(self, sequences: Sequence[Sequence[int]]) -> list[Score]:
        with self._bill.charged(len(sequences)):
            return await self._scorer.score(sequences)


def metered(policy: Policy, bill: Bill) -> Policy:
    """Return a policy that does as the given one, judging if that does, and charges `bill`."""
    if isinstance(policy, JudgingPolicy):
        return MeteredJudgingPolicy(policy, bill)
    return MeteredPolicy(policy, bill)
