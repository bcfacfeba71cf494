"""A fake policy that leaves out what is known (`search.protocols.DepartingPolicy`), token by token."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fakes import END, Rule, decode
from ramify.search.records import Continuation, Departure, Sampling
from search_worlds import JudgingFake


@dataclass
class DepartingFake(JudgingFake):
    """Leaves out what is known. Each token of it carries its own probability, in place of the first of a text."""

    departs: bool = True
    departures: list[Departure | None] = field(default_factory=list)
    """Those of all draws, in the order in which they were asked for."""

    async def sample(
        self,
        prefix: Sequence[int],
        sampling: Sampling,
        seeds: Sequence[int],
        *,
        departures: Sequence[Departure | None] = (),
        **watch: Any,
    ) -> list[Continuation]:
        """watch: what `write_on` has beside, if it is that."""
        left = departures or [None] * len(seeds)
        self.departures += left

        def draws(text: str, sampling: Sampling, seeds: Sequence[int]) -> list[Continuation]:
            whole = (
                self._token_by_token(text, sampling, random.Random(seed), departure)
                for seed, departure in zip(seeds, left, strict=True)
            )
            return [self._cut(one, **watch) if watch else one for one in whole]

        drawn = await self._written(prefix, sampling, seeds, draws)
        self.generated -= sum(one.taken for one in drawn)
        return drawn

    write_on = sample  # type: ignore[assignment]

    def _token_by_token(
        self, text: str, sampling: Sampling, rng: random.Random, left: Departure | None
    ) -> Continuation:
        taken = len(left.tokens) if left else 0
        tokens = list(left.tokens if left else ())
        logprobs = list(left.logprobs if left else ())
        said, finish = decode(tokens), None
        while finish is None:
            chances = next_tokens(self.rule, text, said)
            allowed = chances
            if left and len(tokens) == taken:
                allowed = {token: p for token, p in chances.items() if token not in left.barred}
            (token,) = rng.choices(list(allowed), list(allowed.values()))
            tokens.append(token)
            logprobs.append(math.log(chances[token]))
            said += decode([token])
            finish = self._finish(token, said, len(tokens), sampling)
        ends = tuple(len(decode(tokens[: i + 1])) for i in range(len(tokens)))
        values = tuple(self.value(text + said[:end]) for end in ends)
        return Continuation(tuple(tokens), said, tuple(logprobs), ends, finish, "fake", values, taken=taken)


def next_tokens(rule: Rule, text: str, said: str) -> Mapping[int, float]:
    """Return the probability of each next token after `text`, which ends between two of the rule's texts, and `said`,
    which may end within one."""
    while (whole := next((c for c in rule(text) if c and said.startswith(c)), None)) is not None:
        text, said = text + whole, said[len(whole) :]
    chances = Counter[int]()
    for choice, p in rule(text).items():
        if choice.startswith(said):
            chances[ord(choice[len(said)]) if len(choice) > len(said) else END] += p
    total = sum(chances.values())
    return {token: p / total for token, p in chances.items()}
