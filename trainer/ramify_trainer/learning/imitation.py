"""Which nodes are imitated, and how much: the weights of -log π under `visits` and `sft`."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ramify.search.selection import softmax
from ramify.search.tree import Node, Tree

__all__ = ["correct_paths", "sibling_distribution", "visit_weights"]


def sibling_distribution(
    tree: Tree, node: Node, target: str, c_visit: float = 50.0, c_scale: float = 0.1
) -> dict[int, float]:
    """What the policy at `node` should be, by child id; empty where fewer than two children compete.

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
    """The weight of -log π(child), summing to 1 at every node where children compete."""
    weights: dict[int, float] = {}
    for node in tree.nodes:
        weights |= sibling_distribution(tree, node, target, c_visit, c_scale)
    return {i: w for i, w in weights.items() if w > 0}


def correct_paths(
    tree: Tree, outcomes: Mapping[int, float], least: float, known: set[tuple[int, ...]]
) -> dict[int, float]:
    """TS-LLM's D⁺: by node id, how many distinct right answers pass through it.

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
