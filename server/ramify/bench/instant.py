"""Engines that take no time: what is left is the search's own."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from ramify.search.records import Continuation, Draw, Finish, Score, Verdict

LINE = 7
"""Tokens of a step, the delimiter included."""
LINES = 5
END = 1
DELIMITER = 2


class InstantPolicy:
    """Writes five lines of seven random tokens; a branching factor that lets trees grow wide and deep."""

    def __init__(self, branching: int = 50) -> None:
        self._first = range(10, 10 + branching)

    async def sample(self, prefix: Sequence[int], draw: Draw, seeds: Sequence[int]) -> list[Continuation]:
        await asyncio.sleep(0)
        return [self._one(prefix, draw, random.Random(seed)) for seed in seeds]

    async def next_tokens(self, prefix: Sequence[int], k: int, temperature: float) -> list[Continuation]:
        raise TypeError("the scaling bench draws steps and paths only")

    def _one(self, prefix: Sequence[int], draw: Draw, rng: random.Random) -> Continuation:
        done = sum(token == DELIMITER for token in prefix)
        tokens: list[int] = []
        for _ in range(LINES - done):
            tokens += [rng.choice(self._first), *([9] * (LINE - 2)), DELIMITER]
        stopped = "\n" in draw.stop and done < LINES
        tokens = (tokens[:LINE] if stopped else [*tokens, END])[: draw.max_tokens]
        text = "".join("\n" if t == DELIMITER else "" if t == END else chr(t + 60) for t in tokens)
        ends, at = [], 0
        for token in tokens:
            at += token != END
            ends.append(at)
        finish: Finish = "eos" if tokens[-1] == END else "stop" if stopped else "length"
        return Continuation(tuple(tokens), text, (-1.0,) * len(tokens), tuple(ends), finish, "instant")


class InstantScorer:
    """A value from the tokens' own hash, the same every time."""

    async def score(self, sequences: Sequence[Sequence[int]]) -> list[Score]:
        await asyncio.sleep(0)
        return [Score(hash(tuple(s)) % 1000 / 999, "instant") for s in sequences]


class AnyText:
    """Every text is its own answer."""

    async def finals(self, texts: Sequence[str]) -> list[str | None]:
        return list(texts)

    async def grade(self, text: str) -> Verdict:
        return Verdict(0.0, "not asked")
