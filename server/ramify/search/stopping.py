"""Stop early: when more simulations could hardly change the answer. Off in evaluation and collection."""

from __future__ import annotations

import math
from collections import defaultdict
from heapq import nlargest
from itertools import takewhile

from ramify.search.answers import judgement
from ramify.search.grouping import Grouping
from ramify.search.tree import Node, Tree


class EarlyStop:
    """Votes for each final answer, counted draw by draw as the answer rule counts them, and whether they settle it.

    `verified`: a verifier has accepted an answer. `unbeatable`: even if every answer that may still be drawn were one
    full vote for the second, it would stay behind. `posterior`: the leader is the commoner of the two with a
    probability above the threshold (Aggarwal et al. 2023, "adaptive consistency", the Beta criterion).
    """

    def __init__(self, tree: Tree, grouping: Grouping) -> None:
        self.tree, self.grouping = tree, grouping
        self.votes: defaultdict[str, float] = defaultdict(float)
        """Draws under `majority`, the sum of their judgements under `orm_vote`. Texts without an answer have none."""
        self._counted = 0

    def settled(self, left: int) -> bool:
        """Whether the leading answer may be given now, with at most `left` more answers to come. Only answers that are
        grouped by now have a vote."""
        kind, finals = self.tree.params.early_stop, self.grouping.finals
        drawn = self.tree.completions[self._counted :]
        if kind != "verified":
            drawn = list(takewhile(lambda completion: completion.node in finals, drawn))
        self._counted += len(drawn)
        new = [self.tree.nodes[completion.node] for completion in drawn]
        if kind == "verified":
            return any(node.outcome == 1.0 for node in new)
        self._count(new)
        first, second, *_ = *nlargest(2, self.votes.values()), 0.0, 0.0
        if kind == "unbeatable":
            return first - second > left
        return bool(self.votes) and leads(first, second) > self.tree.params.early_stop_threshold

    def _count(self, draws: list[Node]) -> None:
        for node in draws:
            final = self.grouping.finals[node.id]
            if final is not None:
                self.votes[final] += (
                    judgement(self.tree, node) if self.tree.params.answer == "orm_vote" else 1
                )


def leads(first: float, second: float) -> float:
    """P(p > 1/2) for p ~ Beta(first + 1, second + 1), by the normal approximation to the Beta; exact at equality."""
    a, b = first + 1, second + 1
    mean = a / (a + b)
    deviation = math.sqrt(a * b / ((a + b) ** 2 * (a + b + 1)))
    return 0.5 * (1 + math.erf((mean - 0.5) / (deviation * math.sqrt(2))))
