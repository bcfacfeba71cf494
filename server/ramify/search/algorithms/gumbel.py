"""Gumbel search with Sequential Halving (Danihelka et al. 2022, "Policy improvement by planning with Gumbel").

Of the root's actions the m with the largest g + logit are considered; the budget is split into ⌈log2 m⌉ equal
phases, in each of which the candidates left are visited equally and at whose end the better half stays. Below the
root, actions are chosen so that visits follow the improved policy π' = softmax(logits + σ(completed Q)).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from ramify.search.algorithms.mcts import TREE, Mcts
from ramify.search.builder import TreeBuilder
from ramify.search.plans import Plan
from ramify.search.records import SearchParams
from ramify.search.selection import Arm, best, softmax
from ramify.search.tree import Node, derive_seed


class Gumbel(Mcts):
    parameters = (TREE - {"c_init", "c_base"}) | {"considered", "c_visit", "c_scale", "gumbel_scale"}
    needs = {"width": ("expand", ("step",))}
    refines = False

    def __init__(self, builder: TreeBuilder, rng: random.Random) -> None:
        super().__init__(builder, rng)
        self.candidates: list[Node] | None = None
        """Root actions still considered; `None` before the root is expanded."""
        self.phase = self.phases = 0
        """Phases that have ended, and all of them."""

    @classmethod
    def most_draws(cls, params: SearchParams) -> int:
        return params.considered if params.expand == "path" else max(params.width, params.considered)

    @property
    def needs_priors(self) -> bool:
        return True

    def select(self) -> Plan | None:
        root = self.tree.root
        if not self.widens and not self.builder.unexpanded:
            return None
        if not root.expanded:
            return None if root.expanding else self._expand([root], self.params.considered)
        if self.candidates is None:
            self._consider(self.tree.children(root))
        self._halve()
        return self._visit(self.candidates or [])

    def _consider(self, children: Sequence[Node]) -> None:
        """Gumbel-Top-m: the m children of the largest g(a) + logit(a). A finished answer is known already and takes
        no place among them."""
        live = [c for c in children if c.terminal is None]
        ranked = sorted(live, key=lambda c: (-self._perturbed(c), -(c.value or 0.0), c.id))
        self.candidates = ranked[: self.params.considered]
        self.phases = math.ceil(math.log2(len(self.candidates))) if len(self.candidates) > 1 else 0

    def _halve(self) -> None:
        """Phase i of the ⌈log2 m⌉ ends when the largest spent/limit reaches i/⌈log2 m⌉; the last leaves one."""
        candidates = self.candidates or []
        while self.phase < self.phases and self.budget.fraction() >= (self.phase + 1) / self.phases:
            self.phase += 1
            candidates = self._ranked(candidates)[: math.ceil(len(candidates) / 2)]
        self.candidates = candidates

    def _visit(self, candidates: Sequence[Node]) -> Plan | None:
        """The least visited candidate, the better of equals."""
        for node in sorted(self._ranked(candidates), key=lambda c: c.visits + c.in_flight):
            plan = self.descend([self.tree.root, node])
            if plan is not None:
                return plan
        return None

    def _perturbed(self, child: Node) -> float:
        """g + logit with logit = ln P (under `prior: count`, ln(m/Σm)) and g ~ Gumbel(0, 1)·`gumbel_scale`."""
        noise = 0.0
        if self.params.gumbel_scale:
            uniform = random.Random(derive_seed(self.tree.seed, "gumbel", child.id)).random()
            noise = -math.log(-math.log(max(uniform, 1e-300))) * self.params.gumbel_scale
        return noise + math.log(max(child.prior, 1e-300))

    def _ranked(self, candidates: Sequence[Node]) -> list[Node]:
        """Highest g + logit + σ(q̂) first, by which candidates are kept; q̂ = W/N, unvisited the own value."""
        top = max((c.visits for c in candidates), default=0)
        return sorted(candidates, key=lambda c: (-self._perturbed(c) - self._sigma(c.mean or 0.0, top), c.id))

    def _sigma(self, q: float, max_visits: int) -> float:
        """σ(q) = (c_visit + max N)·c_scale·q (Danihelka et al., eq. 8)."""
        return (self.params.c_visit + max_visits) * self.params.c_scale * q

    def choose(self, node: Node) -> Arm | None:
        """argmax π'(a) - n(a)/(1 + Σn) (Danihelka et al., eq. 14): visits in proportion to π'."""
        choices = self.arms_at(node)
        if not choices:
            return None
        top = max(a.visits for a in choices)
        completed = [a.value_sum / a.visits if a.visits else a.model_value for a in choices]
        improved = softmax(
            [
                math.log(max(a.prior, 1e-12)) + self._sigma(q, top)
                for a, q in zip(choices, completed, strict=True)
            ]
        )
        total = sum(a.n for a in choices)
        return best(choices, [p - a.n / (1 + total) for p, a in zip(improved, choices, strict=True)])
