"""The algorithm `epsilon_greedy`: the best child by its mean value, or now and then any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ramify.search.algorithms.base import Algorithm
from ramify.search.plans import Plan, PlanResult
from ramify.search.tree import Node

EPSILON = 0.3


class EpsilonGreedy(Algorithm):
    """Walk down from the prompt, expand the node that is reached, back its value up; answer with the best judged."""

    defaults: ClassVar[Mapping[str, Any]] = {"expand": "step", "answer": "orm_max"}

    def select(self) -> Plan | None:
        node = self.tree.root
        while node.expanded and node.children:
            children = self.tree.children(node)
            explores = self.rng.random() < EPSILON
            node = self.rng.choice(children) if explores else max(children, key=_mean)
        if node.expanding or (node.expanded and node.terminal is None):
            return None  # its children are being drawn, or nothing came of it
        path = self.tree.lineage(node)
        return self.one_step(path, self.params.width) if node.terminal is None else self.revisit(path)

    def land(self, plan: Plan, result: PlanResult) -> None:
        if plan.node.terminal is None:
            self.land_step(plan, result)
        else:
            self.land_revisit(plan)


def _mean(node: Node) -> float:
    return node.mean or 0.0
