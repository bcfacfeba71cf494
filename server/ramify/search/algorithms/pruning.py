"""Searches that go on from the nodes of the highest value and prune the others: `beam`, `dvts`, `dfs`. Each is one
round, which is repeated while there is budget."""

from __future__ import annotations

import random
from collections import deque

from ramify.search.algorithms.base import STEPWISE, Algorithm
from ramify.search.builder import TreeBuilder
from ramify.search.plans import Plan, PlanResult
from ramify.search.records import SearchParams
from ramify.search.tree import Node


class Beam(Algorithm):
    """BFS-V (TS-LLM; Yao et al. 2023): level by level, the `beam_width` unfinished nodes of the highest value go on.

    A finished answer leaves the beam: it holds no place in it and nothing more is written after it.
    """

    parameters = STEPWISE | {"beam_width"}
    rounds = True

    def __init__(self, builder: TreeBuilder, rng: random.Random) -> None:
        super().__init__(builder, rng)
        self._level: list[Node] = [self.tree.root]
        """Nodes to expand before the next cut."""
        self._below: dict[int, list[Node]] = {}
        """By the id of a node of this level that is expanded, the children drawn."""

    def select(self) -> Plan | None:
        for node in self._level:
            if node.id not in self._below and not node.expanding:
                return self.one_step(self.tree.lineage(node), self.params.width)
        return None

    def land(self, plan: Plan, result: PlanResult) -> None:
        self._below[plan.node.id] = self.land_step(plan, result)
        if len(self._below) == len(self._level):
            self._next_level()

    def _next_level(self) -> None:
        below = [c for children in self._below.values() for c in children if c.terminal is None]
        below.sort(key=lambda c: (-self.tree.estimate(c), c.id))
        self.builder.prune(below[self.params.beam_width :])
        self._level, self._below = below[: self.params.beam_width], {}


class Dvts(Algorithm):
    """Diverse verifier tree search (Beeching et al. 2024): `beam_width` greedy searches that never compete.

    The root is expanded once for all of them, by `beam_width · width` draws; subtree i starts at the i-th best distinct
    child and from there always goes to the best child, however good its neighbours are.
    """

    parameters = STEPWISE | {"beam_width"}
    rounds = True

    def __init__(self, builder: TreeBuilder, rng: random.Random) -> None:
        super().__init__(builder, rng)
        self._heads: deque[Node] = deque([self.tree.root])
        """The node from which each subtree goes on."""

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
        ranked = sorted(self.land_step(plan, result), key=lambda c: (-self.tree.estimate(c), c.id))
        kept = ranked[: self.params.beam_width if plan.node.depth == 0 else 1]
        self.builder.prune(ranked[len(kept) :])
        self._heads.remove(plan.node)
        self._heads.extend(child for child in kept if child.terminal is None)


class Dfs(Algorithm):
    """DFS-V (Yao et al. 2023, "Tree of thoughts", algorithm 2): depth first, the child of the highest value first,
    children whose value is below `threshold` pruned."""

    parameters = STEPWISE | {"threshold"}
    defaults = {"expand": "step", "parallel": 1}
    rounds = True

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
        self.builder.prune(c for c in children if c.value is not None and c.value < self.params.threshold)
        at = next(i for i, node in enumerate(self._stack) if node is plan.node)
        promising = [c for c in children if not c.pruned]
        promising.sort(key=lambda c: (self.tree.estimate(c), -c.id))
        self._stack[at : at + 1] = promising
