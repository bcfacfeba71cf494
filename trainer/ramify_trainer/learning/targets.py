"""Targets of a tree's nodes, by the configured objective: weights, advantages, values. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

import numpy as np

from ramify.search.selection import softmax
from ramify.search.tree import Node, Tree
from ramify_trainer.learning.advantages import champion, gae, tree_advantages
from ramify_trainer.learning.config import LearningConfig
from ramify_trainer.learning.labels import LabelledTree, own_draws
from ramify_trainer.learning.returns import lambda_returns, leaf_counts, tree_values

SMALLEST = 1e-9
"""Advantages, and differences of values, below this are 0."""


@dataclass(frozen=True, slots=True)
class PolicyTargets:
    """Weights and advantages that a tree teaches the policy. Nodes without a weight teach nothing."""

    weights: Mapping[int, float]
    """Weight of the objective's loss on each of a node's tokens, above 0, by node id."""
    advantages: Mapping[int, float] = field(default_factory=dict)
    """A of each of a node's tokens, by node id; empty if nodes are imitated."""
    imitated: Mapping[int, float] = field(default_factory=dict)
    """Weight of the imitation beside the objective (`imitate`), above 0, by node id."""

    @property
    def nodes(self) -> Set[int]:
        """The ids of the nodes that teach something."""
        return self.weights.keys() | self.imitated.keys()

    def without(self, nodes: Set[int]) -> PolicyTargets:
        """Return them but for the weights and advantages of some nodes, by their ids."""
        return replace(
            self,
            weights={i: w for i, w in self.weights.items() if i not in nodes},
            advantages={i: a for i, a in self.advantages.items() if i not in nodes},
        )


def policy_targets(
    labelled: LabelledTree,
    config: LearningConfig,
    values: Mapping[int, float] | None = None,
    seed: Sequence[int] = (),
) -> PolicyTargets:
    """Return what a tree teaches under `config.objective`, if that is not `sft` (see `imitated`). It is nothing if no
    advantage differs from 0. Nodes that were learned from before are compared with, and get no weight.

    `values` are the value model's of the states on the champion path, by node id (`path_ppo` alone). seed: of the wrong
    answers that are learned from (`negatives`)."""
    if config.objective == "visits":
        return PolicyTargets(visit_weights(labelled, config)).without(labelled.learned)
    targets = (
        _tree_ppo(labelled, config, seed)
        if config.objective == "tree_ppo"
        else _path_ppo(labelled, config, values or {})
    ).without(labelled.learned)
    informative = any(abs(a) > SMALLEST for a in targets.advantages.values())
    return targets if informative else PolicyTargets({})


def _tree_ppo(labelled: LabelledTree, config: LearningConfig, seed: Sequence[int]) -> PolicyTargets:
    tree, counts = labelled.tree, leaf_counts(labelled.tree, labelled.outcomes)
    advantages = tree_advantages(
        tree,
        tree_values(tree, labelled.outcomes),
        config.baseline,
        config.baseline_weight,
        config.normalise,
    )
    own = {i: own_draws(tree.nodes[i]) for i in advantages}
    taught = [i for i in advantages if counts[i] and own[i]]
    if config.negatives < 1:
        heard = _heard(labelled, config, seed)
        taught = [i for i in taught if advantages[i] > 0 or i in heard]
    weights = {i: child_weight(own[i], counts[i], config.child_weight) for i in taught}
    return PolicyTargets(weights, {i: advantages[i] for i in taught})


def _heard(labelled: LabelledTree, config: LearningConfig, seed: Sequence[int]) -> set[int]:
    """Return the nodes that lead to a right answer, or to one of the wrong ones that are learned from."""
    tree, draws = labelled.tree, np.random.default_rng(seed)
    right = {i for i, outcome in labelled.outcomes.items() if outcome >= config.correct}
    ends = [i for i in labelled.outcomes if i in right or draws.random() < config.negatives]
    return {node.id for i in ends for node in tree.lineage(tree.nodes[i])}


def _path_ppo(labelled: LabelledTree, config: LearningConfig, values: Mapping[int, float]) -> PolicyTargets:
    path = champion(labelled.tree)
    reward = labelled.outcomes.get(path[-1].id)
    if reward is None or len(path) < 2:
        return PolicyTargets({})
    estimates = gae([values[node.id] for node in path[:-1]], reward, config.gae_lambda)
    advantages = {node.id: a for node, a in zip(path[1:], estimates, strict=True) if own_draws(node)}
    return PolicyTargets(dict.fromkeys(advantages, 1.0), advantages)


def child_weight(draws: float, leaves: int, kind: str) -> float:
    """Return d·√(labelled leaves below), d draws, or 1. A shared prefix is computed once, and yet speaks for all its
    leaves; TreeRL (arXiv 2506.11902) damps what it would count for by the square root."""
    if kind == "one":
        return 1.0
    return draws * (math.sqrt(leaves) if kind == "sqrt_leaves" else 1.0)


def value_targets(tree: Tree, outcomes: Mapping[int, float], lam: float) -> dict[int, tuple[float, float]]:
    """Return (G, weight) by node id, at the end of the prompt and of every step with a labelled answer below it.

    The weight is the number of draws that took the step: the objective is an expectation over the policy's paths. The
    prompt counts once."""
    return {
        i: (value, float(tree.nodes[i].draws) if i else 1.0)
        for i, value in lambda_returns(tree, outcomes, lam).items()
    }


def visit_weights(labelled: LabelledTree, config: LearningConfig) -> dict[int, float]:
    """Return the weights of -log π(child), which sum to 1 at every node whose children compete."""
    tree, weights = labelled.tree, dict[int, float]()
    values = tree_values(tree, labelled.outcomes) if config.visit_target == "completed_q" else None
    for node in tree.nodes:
        children = tree.children(node)
        if len(children) < 2:
            continue
        weights |= (
            visit_distribution(children)
            if values is None
            else improved_policy(node, children, values, config.completed_q_visits, config.completed_q_scale)
        )
    return {i: w for i, w in weights.items() if w > 0}


def visit_distribution(children: Sequence[Node]) -> dict[int, float]:
    """Return what the policy should be by AlphaZero, ∝ N, by child id; empty if nothing was visited."""
    total = sum(c.visits for c in children)
    return {c.id: c.visits / total for c in children} if total else {}


def improved_policy(
    node: Node, children: Sequence[Node], values: Mapping[int, float], c_visit: float, c_scale: float
) -> dict[int, float]:
    """Return what the policy at `node` should be by Gumbel MuZero (Danihelka et al. 2022), by child id; empty if the
    children's values say nothing.

    π' = softmax(ln(m/Σm) + σ(q)), σ(q) = (c_visit + max N)·c_scale·q (eq. 8 and 11), with the draws' shares m/Σm in
    the place of the prior, since the policy drew them (Sampled MuZero, Hubert et al. 2021). q is V by the outcomes of
    the answers below, not the search's own mean. A child of which nothing is known has v_mix (eq. 33): the mean of the
    node's logged value, if there is one, and the known q by share, which counts as often as the children were visited.
    With equal q, π' is what the children were drawn by, and imitating it would be noise."""
    draws = sum(c.draws for c in children)
    known = [c for c in children if c.id in values]
    if not known:
        return {}
    by_share = sum(c.draws * values[c.id] for c in known) / sum(c.draws for c in known)
    visits = sum(c.visits for c in known)
    own = by_share if node.value is None else node.value
    mixed = (own + visits * by_share) / (1 + visits)
    q = [values.get(c.id, mixed) for c in children]
    if max(q) - min(q) < SMALLEST:
        return {}
    scale = (c_visit + max(c.visits for c in children)) * c_scale
    scores = [math.log(c.draws / draws) + scale * x for c, x in zip(children, q, strict=True)]
    return {c.id: p for c, p in zip(children, softmax(scores), strict=True)}


# -- what is imitated ------------------------------------------------------------------------------------------------
#
# TS-LLM's D⁺ (Feng et al. 2023): the distinct right answers of a round, whoever drew them. An answer counts once,
# however often and in however many trees it was drawn. Each weighs 1/n if n answers to its problem are imitated
# (`per_problem`), or else an easy problem, which has many, would weigh more than a hard one.


def right_answers(trees: Sequence[LabelledTree], least: float) -> list[list[Node]]:
    """Return for every tree the ends of its right answers, those left out that a tree before it, or the same one, has,
    and those that an earlier round has learned from.

    least: the least outcome of an answer that is right. Trees that may not be trained on have none."""
    known: set[tuple[int, ...]] = set()
    ends: list[list[Node]] = []
    for labelled in trees:
        ends.append([])
        new = [n for n in labelled.tree.complete() if n.id not in labelled.learned]
        right = [n for n in new if labelled.outcomes.get(n.id, 0.0) >= least]
        for leaf in right if labelled.tree.train else []:
            sequence = labelled.tree.sequence(leaf)
            if sequence not in known:
                known.add(sequence)
                ends[-1].append(leaf)
    return ends


def imitated(
    trees: Sequence[LabelledTree], ends: Sequence[Sequence[Node]], config: LearningConfig
) -> list[dict[int, float]]:
    """Return the weight of -log π by node id, tree by tree: the sum of those of the answers that lead through a node.

    ends: as `right_answers` gave them."""
    answers = Counter[tuple[int, ...]]()
    for labelled, own in zip(trees, ends, strict=True):
        answers[problem_of(labelled)] += len(own)
    weights: list[dict[int, float]] = []
    for labelled, own in zip(trees, ends, strict=True):
        weight = 1.0 / answers[problem_of(labelled)] if own and config.answer_weight == "per_problem" else 1.0
        nodes = Counter(node.id for leaf in own for node in labelled.tree.lineage(leaf)[1:])
        weights.append({i: weight * count for i, count in nodes.items()})
    return weights


def problem_of(labelled: LabelledTree) -> tuple[int, ...]:
    """Return the prompt that names the problem, whatever better answer a tree's own prompt asks for."""
    return labelled.tree.prompt_tokens if labelled.problem is None else labelled.problem
