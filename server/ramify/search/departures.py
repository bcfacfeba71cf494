"""Draw actions without replacement: choose where a draw leaves the actions that are known at its node.

The log-probabilities of the known actions say how likely the policy is to go along with them, token by token. So a draw
that is to repeat none of them can be made in two parts. How far it goes along with known ones is chosen here, as often
as the policy would go that far on its way to a new one, and costs nothing. There it departs: the policy writes on, and
its next token is none of those by which known actions go on. What comes out has the policy's own distribution, given
that it is new. (Sampling without replacement from a sequence model by the trie of what it has said: Shi, Bieber and
Sutton 2020, arXiv 2002.09067; there the model is run from the first token on.)
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from ramify.search.records import Departure

NOTHING_NEW = 0.01
"""A draw leaves nothing out where the policy says something new with a probability under this."""
MOST_BARRED = 128
"""Tokens that a draw may leave out, at most: vLLM's runner for GPUs has no room for more."""
CERTAIN = 1 - 1e-6
"""Largest probability that they are given: what is left can be divided by."""


MOST_DRAWS = 12.0
"""Logarithm of the most draws that distinct ones are taken to have come from."""
HALVINGS = 40


class Known(NamedTuple):
    """An action that is known."""

    tokens: Sequence[int]
    logprobs: Sequence[float]
    """The policy's log-probability of each token."""

    def chance(self, start: int) -> float:
        """Return the policy's probability of the tokens from `start` on, given those before."""
        return math.exp(sum(self.logprobs[start:]))


def depart(known: Sequence[Known], most: int, rng: random.Random) -> Departure | None:
    """Choose where a draw departs. `None` if nothing is known, or nearly everything.

    most: tokens to take over, at most."""
    if not known or 1 - sum(one.chance(0) for one in known) < NOTHING_NEW:
        return None
    depth, along = 0, known
    while True:
        ways = _by_next_token(along, depth)
        chances = {token: math.exp(some[0].logprobs[depth]) for token, some in ways.items()}
        if depth == most:
            break
        # Go on by a token as often as something new follows it; else leave here.
        new = [
            max(0.0, chances[token] - sum(one.chance(depth) for one in some)) for token, some in ways.items()
        ]
        (token,) = rng.choices([*ways, None], [*new, max(0.0, 1 - sum(chances.values()))])
        if token is None:
            break
        depth, along = depth + 1, ways[token]
    barred = sorted(chances, key=chances.__getitem__)[-MOST_BARRED:]
    return Departure(
        tokens=tuple(along[0].tokens[:depth]),
        logprobs=tuple(along[0].logprobs[:depth]),
        barred=tuple(barred),
        mass=min(CERTAIN, sum(map(chances.__getitem__, barred))),
    )


def stand_for(chances: Sequence[float], draws: int) -> list[float]:
    """Return how many of so many draws with replacement each of some distinct draws stands for; they sum to `draws`.

    chances: the policy's probability of each, in [0, 1]. Its share is p/(1 - (1 - p)^n), p over the probability that it
    is seen in n draws with replacement (Horvitz and Thompson 1952), for the n at which the shares sum to 1: a likely
    one has its own probability, and rare ones share alike what is left."""
    low, high = (
        0.0,
        MOST_DRAWS,
    )  # logarithms of n: the shares sum to the number of chances at 1, and to theirs at last
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(_shares(chances, math.exp(middle))) > 1 else (low, middle)
    shares = _shares(chances, math.exp(high))
    total = sum(shares)
    return [draws * share / total for share in shares]


def _shares(chances: Sequence[float], n: float) -> list[float]:
    """Return p/(1 - (1 - p)^n) for each p; its limit 1/n at 0."""
    missed = (n * math.log1p(-min(p, CERTAIN)) for p in chances)
    return [p / -math.expm1(m) if p > 0 else 1 / n for p, m in zip(chances, missed, strict=True)]


def _by_next_token(known: Sequence[Known], depth: int) -> dict[int, list[Known]]:
    ways = defaultdict[int, list[Known]](list)
    for one in known:
        ways[one.tokens[depth]].append(one)
    return ways
