"""Draws without replacement: where a draw leaves the actions that are known at its node, and what the distinct draws of
a node stand for.

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
from itertools import accumulate

from ramify.search.records import Departure, Sampling
from ramify.search.tree import Node, Tree

NEW_ENOUGH = 0.01
"""A draw leaves nothing out where the policy says something new with a probability under this."""
MOST_BARRED = 128
"""Tokens that a draw may leave out, at most: vLLM's runner for GPUs has no room for more."""
CERTAIN = 1 - 1e-6
"""Largest probability that is reckoned with where one less it is divided by."""
MOST_DRAWS = math.log(200_000)
"""The natural logarithm of the most draws that distinct ones are taken to have come from."""
HALVINGS = 40
"""Halvings of the range of that logarithm: as many as a float tells apart."""


class Known:
    """An action that the policy is known to draw."""

    __slots__ = ("chances", "logprobs", "tokens")

    def __init__(self, tokens: Sequence[int], logprobs: Sequence[float]) -> None:
        """logprobs: the policy's log-probability of each token."""
        self.tokens, self.logprobs = tokens, logprobs
        self.chances = [math.exp(x) for x in accumulate(reversed(logprobs), initial=0.0)][::-1]
        """`chances[i]`: the policy's probability of the tokens from i on, given those before."""


def depart(known: Sequence[Known], most: int, rng: random.Random) -> Departure | None:
    """Choose where a draw departs. `None` if nothing is known, or nearly everything.

    known: none the beginning of another. most: tokens to take over, at most."""
    if not known or 1 - sum(one.chances[0] for one in known) < NEW_ENOUGH:
        return None
    depth, along = 0, known
    while True:
        ways = defaultdict[int, list[Known]](list)
        for one in along:
            ways[one.tokens[depth]].append(one)
        chances = {token: math.exp(some[0].logprobs[depth]) for token, some in ways.items()}
        leave = max(0.0, 1 - sum(chances.values()))
        if depth == most:
            if leave < NEW_ENOUGH:
                return None
            break
        # Go on by a token as often as something new follows it; else leave here.
        new = [
            chances[token] * max(0.0, 1 - sum(one.chances[depth + 1] for one in some))
            for token, some in ways.items()
        ]
        if leave + sum(new) == 0:
            return None  # log-probabilities that were computed apart do not quite agree
        (token,) = rng.choices([*ways, None], [*new, leave])
        if token is None:
            break
        depth, along = depth + 1, ways[token]
    barred = sorted(chances, key=chances.__getitem__)[-MOST_BARRED:]
    return Departure(
        tokens=tuple(along[0].tokens[:depth]),
        logprobs=tuple(along[0].logprobs[:depth]),
        barred=tuple(barred),
        mass=min(CERTAIN, sum(chances[token] for token in barred)),
    )


class Departures:
    """The departures of one search's draws."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        sampling = tree.sampling
        whole = sampling.top_p == 1 and not sampling.top_k  # else log-probabilities are of what was kept
        self._leaves_out = not tree.params.replacement and sampling.temperature > 0 and whole
        self._known: dict[int, Known] = {}
        """By node id."""

    def of(self, policy: str, node: Node, sampling: Sampling, seeds: Sequence[int]) -> list[Departure | None]:
        """Choose for the draw of each seed where it leaves the actions that the policy is known to draw at `node`; none
        at all if draws are made with replacement."""
        if not self._leaves_out or node.terminal is not None:
            return []
        known = [
            self._action(child)
            for child in self._tree.children(node)
            # One that was cut off may be the beginning of another, and is no whole action.
            if child.policy in (None, policy) and child.terminal != "truncated"
        ]
        return [depart(known, sampling.max_tokens - 1, random.Random(seed)) for seed in seeds]

    def _action(self, node: Node) -> Known:
        if node.id not in self._known:
            self._known[node.id] = Known(node.tokens, node.logprobs)
        return self._known[node.id]


def stand_for(chances: Sequence[float], draws: float) -> list[float]:
    """Return how many of so many draws with replacement each of some distinct draws stands for; they sum to `draws`.

    chances: the policy's probability of each, in [0, 1]. The share of one is p/(1 - (1 - p)^n), p over the probability
    that it is seen in n draws with replacement (Horvitz and Thompson 1952), for the n at which the shares sum to 1: a
    likely one has its own probability, and rare ones share alike what is left."""
    if len(chances) == 1:  # as most actions of a tree are
        return [draws]
    fewest, most = 0.0, MOST_DRAWS
    for _ in range(HALVINGS):  # the shares fall with n, from 1 each to the chances themselves
        middle = (fewest + most) / 2
        too_few = sum(_shares(chances, math.exp(middle))) > 1
        fewest, most = (middle, most) if too_few else (fewest, middle)
    shares = _shares(chances, math.exp(most))
    total = sum(shares)
    return [draws * share / total for share in shares]


def _shares(chances: Sequence[float], n: float) -> list[float]:
    """Return p/(1 - (1 - p)^n) for each p; its limit 1/n at 0."""
    missed = (n * math.log1p(-min(p, CERTAIN)) for p in chances)
    return [p / -math.expm1(m) if p > 0 else 1 / n for p, m in zip(chances, missed, strict=True)]
