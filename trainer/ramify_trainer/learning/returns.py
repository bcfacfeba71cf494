"""Values and returns of a tree's nodes, backed up from its answers' outcomes.

With m a child's draws, z an answer's outcome and v the value model's logged estimate:

    V(end) = z    V(unexpanded) = v    V(s) = Σ m_c V(c) / Σ m_c
    G(end) = z    G(unexpanded) = v    G(s) = Σ m_c [(1-λ) v(c) + λ G(c)] / Σ m_c

Means are by draws, since a node's children with their multiplicities are i.i.d. draws of the policy there, and not by
the visits that search chose to spend. Children drawn without replacement count for what they stand for (`Node.draws`).
Ends without an outcome are left out of every mean; a node below which nothing is known has no value, and one below
which no answer is labelled is masked.
"""

from __future__ import annotations

from collections.abc import Mapping

from ramify.search.tree import Node, Tree

__all__ = ["lambda_returns", "leaf_counts", "tree_values"]


def tree_values(tree: Tree, outcomes: Mapping[int, float]) -> dict[int, float]:
    """Return V of every node that has one, by node id, in [0, 1]."""
    values: dict[int, float] = {}
    for node in reversed(tree.nodes):  # children come after their parents
        value = _backed_up(tree, node, values) if node.children else _at_leaf(node, outcomes)
        if value is not None:
            values[node.id] = value
    return values


def lambda_returns(tree: Tree, outcomes: Mapping[int, float], lam: float) -> dict[int, float]:
    """Return G of every node with a labelled answer below or at it, by node id, in [0, 1]. λ = 1 is Monte Carlo; on a
    single path this is TD(λ). A child whose v is not known counts by its G alone."""
    returns: dict[int, float] = {}
    for node in reversed(tree.nodes):
        if not node.children:
            value = _at_leaf(node, outcomes)
        else:
            mixed = {
                c.id: lam * returns[c.id] + (1 - lam) * (returns[c.id] if c.value is None else c.value)
                for c in tree.children(node)
                if c.id in returns
            }
            value = _backed_up(tree, node, mixed)
        if value is not None:
            returns[node.id] = value
    counts = leaf_counts(tree, outcomes)
    return {i: value for i, value in returns.items() if counts[i]}


def leaf_counts(tree: Tree, outcomes: Mapping[int, float]) -> list[int]:
    """Return the number of distinct labelled answers at or below each node, by node id."""
    counts = [int(node.terminal is not None and node.id in outcomes) for node in tree.nodes]
    for node in reversed(tree.nodes):
        if node.parent is not None:
            counts[node.parent] += counts[node.id]
    return counts


def _at_leaf(node: Node, outcomes: Mapping[int, float]) -> float | None:
    return outcomes.get(node.id) if node.terminal is not None else node.value


def _backed_up(tree: Tree, node: Node, values: Mapping[int, float]) -> float | None:
    known = [(c.draws, values[c.id]) for c in tree.children(node) if c.id in values]
    total = sum(m for m, _ in known)
    return sum(m * value for m, value in known) / total if total else None
