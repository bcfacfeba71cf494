"""RAP (Hao et al. 2023, "Reasoning with language model is planning with world model"): every simulation descends,
expanding as it goes, until it meets the end of an answer, and backs up once, along the complete path."""

from __future__ import annotations

import random
from collections.abc import Sequence

from ramify.search.algorithms.base import Algorithm
from ramify.search.builder import TreeBuilder
from ramify.search.plans import Plan, PlanResult
from ramify.search.selection import arms, best, puct_scores
from ramify.search.tree import Node


class Rap(Algorithm):
    def __init__(self, builder: TreeBuilder, rng: random.Random) -> None:
        super().__init__(builder, rng)
        self._paused: dict[int, tuple[Node, ...]] = {}
        """Simulations between two expansions, with the path that each has come."""

    def select(self, may_begin: bool) -> Plan | None:
        for simulation, path in self._paused.items():
            plan = self._descend(simulation, path)
            if plan is not None:
                return plan
        if not may_begin or not self.builder.open:
            return None
        return self._descend(self.next_simulation, [self.tree.root])

    def begin(self, plan: Plan) -> None:
        super().begin(plan)
        self._paused.pop(plan.simulation, None)

    @property
    def answers_per_simulation(self) -> int:
        return self.params.width * self.params.max_depth

    def _descend(self, simulation: int, begun: Sequence[Node]) -> Plan | None:
        path = list(begun)
        while (node := path[-1]).terminal is None:
            if not node.expanded:
                return None if node.expanding else self.one_step(path, self.params.width, simulation)
            choices = arms(node, self.tree.children(node), fresh=False, revisit=True)
            arm = best(choices, puct_scores(choices, self.params.c_init, self.params.c_base))
            if arm.node is not None:
                path.append(arm.node)
        return self.revisit(path, simulation)

    def land(self, plan: Plan, result: PlanResult) -> bool:
        if plan.kind == "revisit":
            value = self.tree.leaf_value(plan.node)
            if value is not None:
                self.builder.back_up(plan.path, value)
            return True
        self.builder.merge(plan, result)
        self.builder.set_priors(plan.node)
        self._paused[plan.simulation] = plan.path
        return False
