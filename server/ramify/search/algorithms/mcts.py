"""Monte Carlo tree search: select, expand, judge, back up.

`expand: step` grows one level at a leaf and backs up what the value model says of it. `expand: path` lets the
policy write on to the end of an answer, keeps every step of it as a node, and backs the end's value up the whole way;
the tree widens wherever "draw afresh here" beats going down a child, so a node may get a new child at any time. With
`abandon` such a path breaks off once it is no longer worth its tokens, and the value model's estimate there is backed
up.

Under `action: refine` a node is a whole answer. "Draw afresh here" at the prompt is another answer, and at an answer a
better one of it: with Thompson sampling that is adaptive branching, AB-MCTS-A of Inoue et al. 2025 (arXiv 2503.04412).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from ramify.search.algorithms.base import PUCT, STEPWISE, Algorithm
from ramify.search.builder import TreeBuilder
from ramify.search.plans import Plan, PlanResult
from ramify.search.records import Hurdle
from ramify.search.selection import Arm, arms, best, pseudo_visits, puct_scores, thompson_scores
from ramify.search.tree import Node, derive_seed

TREE = STEPWISE | PUCT | {"expand", "widen", "leaf", "rollout_weight"}
UNKNOWN_END = 32
"""Depth at which answers are expected to end as long as none has, if `max_depth` allows it."""


class Mcts(Algorithm):
    """`commit: root` spends everything from the root (MCTS-Rollout of TS-LLM, arXiv 2309.17179); `commit: step` fixes
    one step after another by visits, the budget spread evenly over the depth that remains (its MCTS-α)."""

    parameters = (
        TREE
        | {"select", "kappa", "kappa_growth", "replacement", "abandon", "abandon_below"}
        | {"commit", "tau", "dirichlet_alpha", "dirichlet_fraction"}
    )
    defaults = {}
    answer_rules = (*Algorithm.answer_rules, "most_visited")
    refines = True

    def __init__(self, builder: TreeBuilder, rng: random.Random) -> None:
        super().__init__(builder, rng)
        self._begun = 0.0
        """The fraction of the budget that was spent when the present root was committed."""

    def rescale(self, factor: float) -> None:
        self._begun *= factor

    @property
    def widens(self) -> bool:
        """Every node has the arm "draw afresh here"."""
        return self.params.expand == "path" or self.params.widen

    def select(self) -> Plan | None:
        """Descend from the search's root, unless every node is expanded or nothing new can follow the root."""
        if not self.widens and not self.builder.unexpanded:
            return None
        if self.params.commit == "step":
            self._commit()
        if self.builder.search_root.terminal is not None:
            return None
        if self.widens and not self.builder.unseen_below(self.builder.search_root):
            return None
        return self.descend([self.builder.search_root])

    @property
    def refines_answers(self) -> bool:
        """Answers are whole nodes, and those below one are to better it."""
        return self.params.action.kind == "refine"

    @property
    def answers_per_simulation(self) -> int:
        if self.params.expand == "path":
            return 1
        return self.params.width + (self.params.leaf != "value")

    @property
    def needs_priors(self) -> bool:
        return self.params.select == "puct"

    def descend(self, path: list[Node]) -> Plan | None:
        """Go down by the selection rule until there is something to draw."""
        while True:
            node = path[-1]
            # The end of an answer: nothing can be drawn below, unless it can be bettered. A search that cannot draw
            # afresh elsewhere counts the visit again.
            if node.terminal is not None and not self.refines_answers:
                return None if self.widens else self.revisit(path)
            # A leaf: expand it. While that is under way, another path may be drawn from there, but no other step. (A
            # path that was given up is visited but not expanded.)
            if not node.expanded and not node.visits:
                return self._expand(path) if self.params.expand == "path" or not node.expanding else None
            # An inner node: follow its best arm, or draw afresh here if that is the arm.
            arm = self.choose(node)
            if arm is None:
                return None
            if arm.node is None:
                return self._expand(path)
            path.append(arm.node)

    def news(self, node: Node, policy: str) -> float:
        return self.builder.unseen_by(node, policy) if self.widens else 1.0

    def arms_at(self, node: Node) -> list[Arm]:
        children = self.tree.children(node)
        fresh = self.builder.unseen(node) if self.widens else 0.0
        return arms(node, children, fresh=fresh, revisit=not self.widens, unseen=self.builder.unseen_below)

    def choose(self, node: Node) -> Arm | None:
        choices = self.arms_at(node)
        if not choices:
            return None
        if self.params.select == "thompson":
            return best(choices, thompson_scores(choices, self._kappas(node, choices), self.rng))
        if node is self.builder.search_root and self.params.dirichlet_fraction:
            choices = self._with_noise(choices)
        return best(choices, puct_scores(choices, self.params.c_init, self.params.c_base))

    def _kappas(self, node: Node, choices: Sequence[Arm]) -> list[float]:
        """Return each arm's pseudo-visits. The end is taken to be the mean depth of the complete answers so far."""
        kappa, growth = self.params.kappa, self.params.kappa_growth
        left = (self.builder.mean_depth or min(self.params.max_depth, UNKNOWN_END)) - node.depth
        here, below = (pseudo_visits(kappa, growth, steps) for steps in (left, left - 1))
        return [here if a.node is None else below for a in choices]

    def _hurdle(self) -> Hurdle | None:
        """Return the hurdle for a path that `abandon` may give up: a share, `abandon_below`, of the posterior mean that
        Thompson sampling has of an answer drawn afresh from the search's root, per token. `None` before an
        answer has come to an end."""
        root, length = self.builder.search_root, self.builder.expected_length
        if not self.params.abandon or length <= root.length:
            return None
        fresh = arms(root, self.tree.children(root), fresh=1.0, revisit=False)[-1]
        (kappa,) = self._kappas(root, [fresh])
        mean = (kappa * fresh.model_value + fresh.value_sum) / max(1.0, kappa + fresh.visits)
        return Hurdle(self.params.abandon_below * mean / (length - root.length), length)

    def _with_noise(self, choices: Sequence[Arm]) -> list[Arm]:
        """P' = (1 - ε)·P + ε·η with η ~ Dir(α) (AlphaZero). Each arm's gamma variate is a function of the seed and the
        arm, so that the noise stays as it is while the tree widens."""
        alpha, epsilon = self.params.dirichlet_alpha, self.params.dirichlet_fraction
        seeds = [derive_seed(self.tree.seed, "dirichlet", a.node.id if a.node else -1) for a in choices]
        gammas = [random.Random(seed).gammavariate(alpha, 1) for seed in seeds]
        total = sum(gammas) or 1.0
        return [
            a._replace(prior=(1 - epsilon) * a.prior + epsilon * g / total)
            for a, g in zip(choices, gammas, strict=True)
        ]

    def _expand(self, path: list[Node], width: int | None = None) -> Plan:
        """Plan to draw `width` times at the end of `path`; once, if answers were or are drawn from there."""
        width = width or self.params.width
        if self.params.expand == "path":
            drawn_before = path[-1].expanded or path[-1].visits or path[-1].expanding
            return replace(self.to_end(path, 1 if drawn_before else width), hurdle=self._hurdle())
        plan = self.one_step(path, width)
        if self.params.leaf == "value":
            return plan
        left = self.tree.sampling.max_tokens - path[-1].length
        return replace(plan, rollout_tokens=left)

    def to_end(self, path: Sequence[Node], n: int) -> Plan:
        plan = super().to_end(path, n)
        return replace(plan, kind="answer") if self.refines_answers else plan

    def land(self, plan: Plan, result: PlanResult) -> None:
        if plan.kind == "revisit":
            self.land_revisit(plan)
        elif plan.kind in ("path", "answer"):
            self._land_paths(plan, result)
        elif plan.rollout_tokens:
            self._land_rollout(plan, result)
        else:
            self.land_step(plan, result)

    def _land_paths(self, plan: Plan, result: PlanResult) -> None:
        """Every draw passes through the nodes that it wrote, so it counts as a fresh draw at each of them too."""
        for line in self.builder.merge(plan, result):
            if not line:
                continue
            if self.needs_priors:
                for node in (plan.node, *line[:-1]):
                    self.builder.set_priors(node)
            value = self.tree.leaf_value(line[-1])
            if value is not None:
                self.builder.back_up((*plan.path, *line), value, fresh=(plan.node, *line[:-1]))

    def _land_rollout(self, plan: Plan, result: PlanResult) -> None:
        lines = self.builder.merge(plan, result)
        self.builder.set_priors(plan.node)
        weight = self.params.rollout_weight if self.params.leaf == "mixed" else 1.0
        parts = [
            (weight, self.tree.leaf_value(lines[-1][-1]) if result.rollout else None),
            (1 - weight, self.mean_value([line[0] for line in lines[: len(result.samples)] if line])),
        ]
        known = [(w, v) for w, v in parts if v is not None and w > 0]
        if known:
            value = sum(w * v for w, v in known) / sum(w for w, _ in known)
            self.builder.back_up(plan.path, value, fresh=(plan.node,))

    def _commit(self) -> None:
        """Move the search's root one step down each time its share of the budget is spent, or once it brings nothing
        new: what is left of its share then goes to the steps below."""
        while (root := self.builder.search_root).terminal is None and root.expanded:
            share = (1 - self._begun) / max(1, self._end_depth() - root.depth)
            due, spent = self._begun + share, self.budget.fraction()
            spent_share = spent >= due - 1e-9  # as numbers, 1/3 + 1/3 is more than 2/3
            visited = [c for c in self.tree.children(root) if c.visits and c.terminal != "pruned"]
            if not visited or not (spent_share or self.builder.exhausted):
                return
            self.builder.commit(self._committed(visited))
            self._begun = min(due, spent)

    def _end_depth(self) -> int:
        """The depth at which answers end: that of the deepest complete one that the tree holds."""
        return self.builder.deepest or min(self.params.max_depth, UNKNOWN_END)

    def _committed(self, visited: Sequence[Node]) -> Node:
        if self.params.tau == 0:
            return max(visited, key=lambda c: (c.visits, c.mean or 0.0, -c.id))
        top = max(c.visits for c in visited)
        weights = [(c.visits / top) ** (1 / self.params.tau) for c in visited]
        return self.rng.choices(visited, weights)[0]
