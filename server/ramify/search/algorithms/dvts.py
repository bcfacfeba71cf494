"""Diverse verifier tree search (Beeching et al. 2024): `beam_width` greedy searches that never compete.

The root is expanded once for all of them, by `beam_width · width` draws; subtree i starts at the i-th best distinct
child and from there always goes to the best child, however good its neighbours are.
"""

from __future__ import annotations

import random
from collections import deque

from ramify.search.algorithms.base import STEPWISE, Algorithm
from ramify.search.builder import TreeBuilder
from ramify.search.plans import Plan, PlanResult
from ramify.search.records import SearchParams
from ramify.search.tree import Node


class Dvts(Algorithm):
    parameters = STEPWISE | {"beam_width"}

    def __init__(self, builder: TreeBuilder, rng: random.Random) -> None:
        super().__init__(builder, rng)
        self._heads: deque[Node] = deque([self.tree.root])
        """Where each subtree goes on."""

    @classmethod
    def most_draws(cls, params: SearchParams) -> int:
        return params.width * params.beam_width

    def select(self) -> Plan | None:
        for head in self._heads:
            if not head.expanding:
                draws = self.params.width * (1 if head.depth else self.params.beam_width)
                return self.one_step(self.tree.lineage(head), draws)
        return None

    def land(self, plan: Plan, result: PlanResult) -> None:
        ranked = sorted(self.land_step(plan, result), key=lambda c: (-(self.tree.leaf_value(c) or 0.0), c.id))
        kept = ranked[: self.params.beam_width if plan.node.depth == 0 else 1]
        for loser in ranked[len(kept) :]:
            loser.pruned = loser.terminal is None
        self._heads.remove(plan.node)
        self._heads.extend(child for child in kept if child.terminal is None)
