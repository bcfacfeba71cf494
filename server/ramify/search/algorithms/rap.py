"""RAP (Hao et al. 2023, "Reasoning with language model is planning with world model"): every simulation descends,
expanding as it goes, until it meets the end of an answer, and backs up once, along the complete path.

A node is expanded once, so after a while the simulations only go back to the best answer. Another round then draws
other children, from the root on, beside the statistics that the tree has."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from ramify.search.algorithms.base import PUCT, STEPWISE, Algorithm
from ramify.search.builder import TreeBuilder
from ramify.search.plans import Plan, PlanResult
from ramify.search.records import Sampling, SearchParams
from ramify.search.selection import arms, best, puct_scores
from ramify.search.tree import Node


class Rap(Algorithm):
    parameters = STEPWISE | PUCT
    defaults = {"select": "puct", "expand": "step"}
    answer_rules = (*Algorithm.answer_rules, "most_visited")
    rounds = True

    def __init__(self, builder: TreeBuilder, rng: random.Random) -> None:
        super().__init__(builder, rng)
        self._paused: dict[int, tuple[Node, ...]] = {}
        """Simulations between two expansions, with the path that each has come."""
        self._below: dict[int, list[Node]] = {}
        """By the id of a node that is expanded, the children drawn."""
        self._unexpanded = 1
        """Nodes that are still to be expanded, the root first of all."""

    @classmethod
    def worst_case(cls, params: SearchParams, sampling: Sampling) -> int:
        """Every simulation may expand a node at each depth."""
        return super().worst_case(params, sampling) * min(params.max_depth, sampling.max_tokens)

    @property
    def answers_per_simulation(self) -> int:
        return self.params.width * self.params.max_depth

    def select(self) -> Plan | None:
        return self._descend(self.next_simulation, [self.tree.root]) if self._unexpanded else None

    def resume(self) -> Plan | None:
        plans = (self._descend(simulation, path) for simulation, path in self._paused.items())
        return next((plan for plan in plans if plan is not None), None)

    def begin(self, plan: Plan) -> None:
        super().begin(plan)
        self._paused.pop(plan.simulation, None)

    def _descend(self, simulation: int, begun: Sequence[Node]) -> Plan | None:
        """Go down by PUCT to a node that was not expanded yet, or to the end of an answer."""
        path = list(begun)
        while (node := path[-1]).terminal is None:
            if node.id not in self._below:
                plan = self.one_step(path, self.params.width)
                return None if node.expanding else replace(plan, simulation=simulation, ends=False)
            choices = arms(node, self._below[node.id], fresh=False, revisit=True)
            arm = best(choices, puct_scores(choices, self.params.c_init, self.params.c_base))
            if arm.node is not None:
                path.append(arm.node)
        return replace(self.revisit(path), simulation=simulation)

    def land(self, plan: Plan, result: PlanResult) -> None:
        if plan.ends:
            self.land_revisit(plan)
            return
        lines = self.builder.merge(plan, result)
        self.builder.set_priors(plan.node)
        children = list({line[0].id: line[0] for line in lines if line}.values())
        self._below[plan.node.id] = children
        self._unexpanded += sum(child.terminal is None for child in children) - 1
        self._paused[plan.simulation] = plan.path
