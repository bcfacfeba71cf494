"""Targets of a tree's nodes, by the configured objective: weights, advantages, values. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ramify.search.selection import softmax
from ramify.search.tree import Node, Tree
from ramify_trainer.learning.advantages import champion, gae, tree_advantages
from ramify_trainer.learning.config import LearningConfig
from ramify_trainer.learning.labels import LabelledTree
from ramify_trainer.learning.returns import lambda_returns, leaf_counts, tree_values


@dataclass(frozen=True, slots=True)
class PolicyTargets:
    """Weights and advantages that a tree teaches the policy. Nodes without a weight teach nothing."""

    weights: Mapping[int, float]
    """Weight of each of a node's tokens, above 0, by node id."""
    advantages: Mapping[int, float] = field(default_factory=dict)
    """A of each of a node's tokens, by node id; empty if nodes are imitated."""


def policy_targets(
    labelled: LabelledTree,
    config: LearningConfig,
    known: set[tuple[int, ...]],
    values: Mapping[int, float] | None = None,
) -> PolicyTargets:
    """Return a tree's targets under `config.objective`.

    `known` are the right answers met before (`sft`, which adds to it). `values` are the value model's of the states on
    the champion path, by node id (`path_ppo` alone)."""
    tree = labelled.tree
    if config.objective == "tree_ppo":
        return _tree_ppo(labelled, config)
    if config.objective == "path_ppo":
        return _path_ppo(labelled, config, values or {})
    if config.objective == "visits":
        c_visit, c_scale = config.completed_q_visits, config.completed_q_scale
        return PolicyTargets(visit_weights(tree, config.visit_target, c_visit, c_scale))
    return PolicyTargets(correct_paths(tree, labelled.outcomes, config.correct, known))


def _tree_ppo(labelled: LabelledTree, config: LearningConfig) -> PolicyTargets:
    tree, counts = labelled.tree, leaf_counts(labelled.tree, labelled.outcomes)
    advantages = tree_advantages(
        tree,
        tree_values(tree, labelled.outcomes),
        config.baseline,
        config.baseline_weight,
        config.normalise,
    )
    weights = {
        i: child_weight(tree.nodes[i].multiplicity, counts[i], config.child_weight)
        for i in advantages
        if counts[i]
    }
    return PolicyTargets(weights, {i: advantages[i] for i in weights})


def _path_ppo(labelled: LabelledTree, config: LearningConfig, values: Mapping[int, float]) -> PolicyTargets:
    path = champion(labelled.tree)
    reward = labelled.outcomes.get(path[-1].id)
    if reward is None or len(path) < 2:
        return PolicyTargets({})
    estimates = gae([values[node.id] for node in path[:-1]], reward, config.gae_lambda)
    advantages = {node.id: a for node, a in zip(path[1:], estimates, strict=True)}
    return PolicyTargets(dict.fromkeys(advantages, 1.0), advantages)


def child_weight(multiplicity: int, leaves: int, kind: str) -> float:
    """Return m·√(labelled leaves below), m, or 1. A shared prefix is computed once, and yet speaks for all its
    leaves; TreeRL (arXiv 2506.11902) damps what it would count for by the square root."""
    if kind == "one":
        return 1.0
    return multiplicity * (math.sqrt(leaves) if kind == "sqrt_leaves" else 1.0)


def value_targets(tree: Tree, outcomes: Mapping[int, float], lam: float) -> dict[int, tuple[float, float]]:
    """Return (G, weight) by node id, at the end of the prompt and of every step with a labelled answer below it.

    The weight is the number of draws that took the step: the objective is an expectation over the policy's paths. The
    prompt counts once."""
    return {
        i: (value, float(tree.nodes[i].multiplicity) if i else 1.0)
        for i, value in lambda_returns(tree, outcomes, lam).items()
    }


def sibling_distribution(
    tree: Tree, node: Node, target: str, c_visit: float = 50.0, c_scale: float = 0.1
) -> dict[int, float]:
    """Return what the policy at `node` should be, by child id; empty if fewer than two children compete.

    `visits`: ∝ N (AlphaZero). `completed_q`: softmax(ln(m/Σm) + σ(q)), σ(q) = (c_visit + max N)·c_scale·q, with q the
    search's mean, and the model's own value for a child never visited (Danihelka et al. 2022, eq. 11)."""
    children = tree.children(node)
    total = sum(c.visits for c in children)
    if len(children) < 2 or not total:
        return {}
    if target == "visits":
        return {c.id: c.visits / total for c in children}
    scale = (c_visit + max(c.visits for c in children)) * c_scale
    judged = [c for c in children if c.mean is not None]
    scores = [math.log(c.multiplicity) + scale * (c.mean or 0.0) for c in judged]
    return {c.id: p for c, p in zip(judged, softmax(scores), strict=True)}


def visit_weights(tree: Tree, target: str, c_visit: float = 50.0, c_scale: float = 0.1) -> dict[int, float]:
    """Return the weights of -log π(child), which sum to 1 at every node whose children compete."""
    weights: dict[int, float] = {}
    for node in tree.nodes:
        weights |= sibling_distribution(tree, node, target, c_visit, c_scale)
    return {i: w for i, w in weights.items() if w > 0}


def correct_paths(
    tree: Tree, outcomes: Mapping[int, float], least: float, known: set[tuple[int, ...]]
) -> dict[int, float]:
    """Return TS-LLM's D⁺: by node id, how many distinct right answers pass through it.

    An answer counts once, however often it was drawn; `known` holds the sequences (prompt and answer) that were met
    before, in other trees, and is added to."""
    weights: dict[int, float] = {}
    for leaf in tree.complete():
        if outcomes.get(leaf.id, 0.0) < least or (sequence := tree.sequence(leaf)) in known:
            continue
        known.add(sequence)
        for node in tree.lineage(leaf)[1:]:
            weights[node.id] = weights.get(node.id, 0.0) + 1.0
    return weights
