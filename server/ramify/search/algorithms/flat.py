"""`best_of_n` and `self_consistency`: complete answers drawn from the prompt until the budget ends.

The baselines. One simulation is one answer, a child of the root whatever its length, so temperature 0 and one
simulation is greedy decoding. The two differ in their answer rule: the outcome model's choice, or the majority.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ramify.search.algorithms.base import COMMON, Algorithm
from ramify.search.plans import Plan, PlanResult
from ramify.search.records import SearchParams
from ramify.search.tree import Node


class BestOfN(Algorithm):
    parameters = COMMON
    defaults = {"expand": "path", "answer": "orm_max", "max_depth": 1}
    flat = True

    @classmethod
    def most_draws(cls, params: SearchParams) -> int:
        return 1

    @classmethod
    def reads_off(cls, params: SearchParams) -> bool:
        return True

    @property
    def answers_per_simulation(self) -> int:
        return 1

    def select(self) -> Plan | None:
        return self.to_end([self.tree.root], 1)

    def to_end(self, path: Sequence[Node], n: int) -> Plan:
        return replace(super().to_end(path, n), kind="answer")

    def land(self, plan: Plan, result: PlanResult) -> None:
        for line in self.builder.merge(plan, result):
            value = self.tree.leaf_value(line[-1]) if line else None
            if value is not None:
                self.builder.back_up((*plan.path, *line), value, fresh=plan.path)


class SelfConsistency(BestOfN):
    defaults = {**BestOfN.defaults, "answer": "majority"}
