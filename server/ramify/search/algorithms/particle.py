"""Particle filtering (Puri et al. 2025, arXiv 2502.01618): `beam_width` particles write a step each, then are
resampled by value.

The value model twists the policy, so a particle that went from s to s' weighs v(s')/v(s) (the incremental weight of
sequential Monte Carlo; Zhao et al. 2024, arXiv 2404.17546). Finished particles stay in the population with weight 1
and write nothing more. Resampling is systematic (Kitagawa 1996). While there is budget, another population follows
(particle Gibbs without its conditioning: Andrieu et al. 2010).
"""

from __future__ import annotations

import random
from collections import Counter

from ramify.search.algorithms.base import STEPWISE, Algorithm
from ramify.search.builder import TreeBuilder
from ramify.search.plans import Plan, PlanResult
from ramify.search.records import SearchParams
from ramify.search.tree import Node

_FLOOR = 1e-6
"""Values are kept this far from 0, so that weights stay defined if the model rules everything out."""


class Particle(Algorithm):
    parameters = (STEPWISE | {"beam_width"}) - {"width"}
    defaults = {"expand": "step", "beam_width": 16}
    rounds = True

    def __init__(self, builder: TreeBuilder, rng: random.Random) -> None:
        super().__init__(builder, rng)
        self._at: Counter[int] = Counter({0: self.params.beam_width})
        """Particles at each node, before they have written this round's step."""
        self._moved: list[tuple[Node, float]] = []
        """Particles that have written it, each by the node it came to and its incremental weight."""

    @classmethod
    def most_draws(cls, params: SearchParams) -> int:
        return params.beam_width

    def select(self) -> Plan | None:
        for at, count in self._at.items():
            node = self.tree.nodes[at]
            if node.terminal is None and not node.expanding:
                return self.one_step(self.tree.lineage(node), count)
        return None

    def land(self, plan: Plan, result: PlanResult) -> None:
        self.land_step(plan, result)
        for sample in result.samples:
            child = self.builder.known(plan.node, sample[0].tokens)
            if child is not None:
                self._moved.append((child, self._weight(plan.node, child)))
        self._at[plan.node.id] -= len(result.samples)  # fewer than stand there if the budget was short
        self._at += Counter()  # drops the nodes with none left
        if all(self.tree.nodes[at].terminal for at in self._at):
            self._moved += [(self.tree.nodes[at], 1.0) for at in self._at.elements()]
            self._at.clear()
            self._resample()

    @property
    def answers_per_simulation(self) -> int:
        return self.params.beam_width

    def _weight(self, before: Node, after: Node) -> float:
        """v(s')/v(s), with 1 for v(s) at the prompt; 1 if the judge of s' failed."""
        reached = self.tree.leaf_value(after)
        if reached is None:
            return 1.0
        return max(_FLOOR, reached) / (max(_FLOOR, self.tree.estimate(before)) if before.depth else 1.0)

    def _resample(self) -> None:
        """Systematic resampling: one uniform offset, evenly spaced pointers over the cumulated weights."""
        count = len(self._moved)
        step = sum(w for _, w in self._moved) / count
        offset, cumulated, drawn = self.rng.random() * step, 0.0, 0
        for node, weight in self._moved:
            cumulated += weight
            while drawn < count and offset + drawn * step < cumulated:
                self._at[node.id] += 1
                drawn += 1
        self.builder.prune(node for node, _ in self._moved if node.id not in self._at)
        self._moved = []
