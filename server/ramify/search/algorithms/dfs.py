"""DFS-V (Yao et al. 2023, "Tree of thoughts", algorithm 2): depth first, the child of the highest value first,
children whose value is below `threshold` pruned."""

from __future__ import annotations

import random

from ramify.search.algorithms.base import STEPWISE, Algorithm
from ramify.search.builder import TreeBuilder
from ramify.search.plans import Plan, PlanResult
from ramify.search.tree import Node


class Dfs(Algorithm):
    parameters = STEPWISE | {"threshold"}
    defaults = {"expand": "step", "parallel": 1}

    def __init__(self, builder: TreeBuilder, rng: random.Random) -> None:
        super().__init__(builder, rng)
        self._stack: list[Node] = [self.tree.root]
        """Nodes to expand, the next one last. With `parallel` above 1 the topmost ones are expanded together."""

    def select(self) -> Plan | None:
        for node in reversed(self._stack):
            if not node.expanding:
                return self.one_step(self.tree.lineage(node), self.params.width)
        return None

    def land(self, plan: Plan, result: PlanResult) -> None:
        children = [c for c in self.land_step(plan, result) if c.terminal is None]
        for child in children:
            child.pruned = (self.tree.leaf_value(child) or 0.0) < self.params.threshold
        at = next(i for i, node in enumerate(self._stack) if node is plan.node)
        promising = sorted(
            (c for c in children if not c.pruned), key=lambda c: ((self.tree.leaf_value(c) or 0.0), -c.id)
        )
        self._stack[at : at + 1] = promising
