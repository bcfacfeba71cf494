"""BFS-V (TS-LLM; Yao et al. 2023): level by level, the `beam_width` unfinished nodes of the highest value go on.

A finished answer leaves the beam: it holds no place in it and nothing more is written after it.
"""

from __future__ import annotations

import random

from ramify.search.algorithms.base import STEPWISE, Algorithm
from ramify.search.builder import TreeBuilder
from ramify.search.plans import Plan, PlanResult
from ramify.search.tree import Node


class Beam(Algorithm):
    parameters = STEPWISE | {"beam_width"}

    def __init__(self, builder: TreeBuilder, rng: random.Random) -> None:
        super().__init__(builder, rng)
        self._level: list[Node] = [self.tree.root]
        """Nodes to expand before the next cut."""

    def select(self) -> Plan | None:
        for node in self._level:
            if not node.expanded and not node.expanding:
                return self.one_step(self.tree.lineage(node), self.params.width)
        return None

    def _next_level(self) -> None:
        below = [c for node in self._level for c in self.tree.children(node) if c.terminal is None]
        below.sort(key=lambda c: (-(self.tree.leaf_value(c) or 0.0), c.id))
        for loser in below[self.params.beam_width :]:
            loser.pruned = True
        self._level = below[: self.params.beam_width]

    def land(self, plan: Plan, result: PlanResult) -> None:
        self.land_step(plan, result)
        if all(node.expanded for node in self._level):
            self._next_level()
