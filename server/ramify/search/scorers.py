"""Several scorers at once, each by its name: what a text is worth to all of them, and whether one of them prunes it.

A scorer has a weight or a threshold, never both. Those with a weight say what a text is worth: the weighted mean of
their values. One with a threshold is a safety scorer: a text that it values below the threshold is pruned, whatever it
is worth, and its value counts for nothing else.

A single scorer is the case of one without a name, so that nothing else needs to know how many there are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ramify.search.protocols import Scorer
from ramify.search.records import Score

Sequences = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class NamedScorer:
    """A scorer and its part in the judgement."""

    scorer: Scorer
    weight: float = 1.0
    """Weight of its value in the mean, at least 0. A safety scorer's has no effect."""
    prune_below: float | None = None
    """The value, in (0, 1), below which it prunes a text; `None`: it prunes none, and its weight counts."""


@dataclass(frozen=True, slots=True)
class Scorers:
    """Scorers by name. They can stand for one (`Scorer`), whose values are the means of theirs."""

    named: Mapping[str, NamedScorer] = field(default_factory=dict)

    @classmethod
    def of(cls, scorer: Scorer | None) -> Scorers:
        """Return scorers as they are, any other scorer as the only one, and none for `None`."""
        if isinstance(scorer, Scorers):
            return scorer
        return cls() if scorer is None else cls({"": NamedScorer(scorer)})

    @property
    def weighing(self) -> tuple[str, ...]:
        """Names of those that say what a text is worth."""
        return tuple(name for name, one in self.named.items() if one.prune_below is None)

    @property
    def pruning(self) -> tuple[str, ...]:
        """Names of the safety scorers."""
        return tuple(name for name, one in self.named.items() if one.prune_below is not None)

    def wrapped(self, wrap: Callable[[Scorer], Scorer]) -> Scorers:
        """Return the same with what `wrap` makes of each scorer in its place."""
        return Scorers({name: replace(one, scorer=wrap(one.scorer)) for name, one in self.named.items()})

    async def ask(self, weigh: Sequences, prune: Sequences) -> dict[tuple[int, ...], dict[str, Score]]:
        """Have sequences judged, by all scorers at once: `weigh` by those with a weight, `prune` by the safety scorers.
        Returns what each said, by sequence and by name.

        Raises what a scorer raises, and `RuntimeError` for a reply that cannot be used."""
        asked = dict.fromkeys(self.weighing, weigh) | dict.fromkeys(self.pruning, prune)
        asked = {name: sequences for name, sequences in asked.items() if sequences}
        calls = [self._ask_one(name, sequences) for name, sequences in asked.items()]
        replies = [await call for call in calls] if len(calls) == 1 else await _together(calls)
        found: dict[tuple[int, ...], dict[str, Score]] = {}
        for (name, sequences), scores in zip(asked.items(), replies, strict=True):
            for sequence, score in zip(sequences, scores, strict=True):
                found.setdefault(tuple(sequence), {})[name] = score
        return found

    async def _ask_one(self, name: str, sequences: Sequences) -> list[Score]:
        scores = await self.named[name].scorer.score(sequences)
        who = f"scorer {name!r}" if name else "scorer"
        if len(scores) != len(sequences):
            raise RuntimeError(f"the {who} gave {len(scores)} values for {len(sequences)} sequences")
        for score in scores:
            if not 0 <= score.value <= 1:  # NaN is in no range
                raise RuntimeError(f"the {who} gave the value {score.value}, which is outside [0, 1]")
        return scores

    def value(self, scores: Mapping[str, Score]) -> float | None:
        """Return Σ w·v / Σ w over the scorers with a weight, in [0, 1]; `None` if none of them was asked."""
        asked = [(self.named[name].weight, scores[name].value) for name in self.weighing if name in scores]
        if len(asked) == 1:
            return asked[0][1]
        total = sum(weight for weight, _ in asked)
        return sum(weight * value for weight, value in asked) / total if asked else None

    @staticmethod
    def kept(scores: Mapping[str, Score]) -> dict[str, float] | None:
        """Return the values that a tree keeps beside the mean: those of scorers with a name, `None` if there are
        none."""
        return {name: score.value for name, score in scores.items() if name} or None

    def pruned_by(self, scores: Mapping[str, Score]) -> str | None:
        """Return the name of the first safety scorer that prunes; `None` if none does."""
        for name in self.pruning:
            least = self.named[name].prune_below
            if name in scores and least is not None and scores[name].value < least:
                return name
        return None

    async def score(self, sequences: Sequences) -> list[Score]:
        """Judge sequences as one scorer: by the mean of those with a weight, of which there must be one."""
        found = await self.ask(sequences, ())
        judged = [found[tuple(sequence)] for sequence in sequences]
        return [Score(self.value(scores) or 0.0, next(iter(scores.values())).release) for scores in judged]


async def _together(calls: Sequence[Coroutine[None, None, list[Score]]]) -> list[list[Score]]:
    """Return what the calls return, in order. The first that fails ends the others, and its error is raised as it
    is."""
    try:
        async with asyncio.TaskGroup() as group:
            work = [group.create_task(call) for call in calls]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [one.result() for one in work]
