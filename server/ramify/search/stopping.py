"""Stop early: when more simulations could hardly change the answer. Off in evaluation and collection."""

from __future__ import annotations

import math
from collections import defaultdict
from heapq import nlargest

from ramify.search.answers import judgement
from ramify.search.protocols import Task
from ramify.search.tree import Node, Tree


class EarlyStop:
    """Votes for each final answer, counted draw by draw as the answer rule counts them, and whether they settle it.

    `verified`: a verifier has accepted an answer. `unbeatable`: even if every answer that may still be drawn were one
    full vote for the second, it would stay behind. `posterior`: the leader is the commoner of the two with a
    probability above the threshold (Aggarwal et al. 2023, "adaptive consistency", the Beta criterion).
    """

    def __init__(self, tree: Tree, task: Task) -> None:
        self.tree, self.task = tree, task
        self.votes: defaultdict[str, float] = defaultdict(float)
        """Draws under `majority`, the sum of their judgements under `orm_vote`. Texts without an answer have none."""
        self._counted = 0
        self._finals: dict[int, str | None] = {}

    async def settled(self, left: int) -> bool:
        """Whether the leading answer may be given now, with at most `left` more answers to come."""
        kind = self.tree.params.early_stop
        new = [self.tree.nodes[c.node] for c in self.tree.completions[self._counted :]]
        self._counted += len(new)
        if kind == "verified":
            return any(node.outcome == 1.0 for node in new)
        await self._count(new)
        first, second, *_ = *nlargest(2, self.votes.values()), 0.0, 0.0
        if kind == "unbeatable":
            return first - second > left
        return bool(self.votes) and leads(first, second) > self.tree.params.early_stop_threshold

    async def _count(self, draws: list[Node]) -> None:
        unnamed = [node for node in {n.id: n for n in draws}.values() if node.id not in self._finals]
        if unnamed:
            names = await self.task.finals([self.tree.text(node) for node in unnamed])
            self._finals |= {node.id: final for node, final in zip(unnamed, names, strict=True)}
        for node in draws:
            final = self._finals[node.id]
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
