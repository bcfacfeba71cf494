"""Advantages of a tree's nodes, and of its champion path.

`tree_ppo` compares a child with what the policy reaches without it. With V as in `returns`, d a child's draws, n = Σ d
those at s, and o = min(1, d(c)) what one draw of c is of them:

- `siblings`: A(c) = V(c) - V(s). A lone child has none: along a rollout that nothing else
  branched from, only the first step learns.
- `ancestors`: A(c) = V(c) - b(c) with b(c) = (κ·B(s) + n·V(s) - o·V(c)) / (κ + n - o): the other draws at s (one of c's
  own is left out, as in RLOO, arXiv 2402.14740), and B(s) as κ further draws: B(s) is what s itself was
  compared with, b(s); at the root there is no B. So a lone child inherits its parent's baseline, a single rollout
  learns along its whole length as a flat sample does, and at a fork the branches decide. (TreeRL, arXiv
  2506.11902, adds the two comparisons up instead.)
- `value`: the same with B(s) = v(s), the value model's logged estimate, if there is one.

b(c) does not depend on what happened below the draw that it judges, so it is a baseline and adds no bias; V(s), which
contains V(c), shrinks A by (n-1)/n. (Decided 2026-11-24; `siblings` stays a setting.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from ramify.search.tree import Node, Tree

__all__ = ["champion", "gae", "tree_advantages"]

LEAST_DRAWS = 1e-6
"""Draws that a child is compared with, at least."""
LEAST_DEVIATION = 1e-4
"""A standard deviation of siblings below this is none: they are equal, and so are their advantages, 0."""


def tree_advantages(
    tree: Tree,
    values: Mapping[int, float],
    baseline: Literal["siblings", "ancestors", "value"] = "siblings",
    weight: float = 1.0,
    normalise: bool = False,
) -> dict[int, float]:
    """Return A of every child of a node with known values, by node id. `weight` is κ."""
    advantages: dict[int, float] = {}
    outside: dict[int, float] = {}
    for node in tree.nodes:
        children = [c for c in tree.children(node) if c.id in values]
        if not children:
            continue
        prior = outside.get(node.id)
        if baseline == "value" and node.value is not None:
            prior = node.value
        below = {}
        for child in children:
            compared = _compared(child, children, values, baseline, prior, weight)
            if compared is None:
                continue
            outside[child.id] = compared
            below[child.id] = values[child.id] - compared
        advantages |= _normalised(below, children, values) if normalise else below
    return advantages


def _compared(
    child: Node,
    siblings: Sequence[Node],
    values: Mapping[int, float],
    baseline: str,
    prior: float | None,
    weight: float,
) -> float | None:
    draws = sum(c.draws for c in siblings)
    total = sum(c.draws * values[c.id] for c in siblings)
    if baseline == "siblings":
        return total / draws
    kappa = 0.0 if prior is None else weight
    own = min(1.0, child.draws)
    if kappa + draws - own < LEAST_DRAWS:
        return None  # one draw from the root, and nothing to compare it with
    return (kappa * (prior or 0.0) + total - own * values[child.id]) / (kappa + draws - own)


def _normalised(
    advantages: Mapping[int, float], siblings: Sequence[Node], values: Mapping[int, float]
) -> dict[int, float]:
    """Return the advantages divided by the standard deviation of the siblings' V by draws; lone children as
    they are."""
    draws = sum(c.draws for c in siblings)
    if len(siblings) == 1:
        return dict(advantages)
    mean = sum(c.draws * values[c.id] for c in siblings) / draws
    variance = sum(c.draws * (values[c.id] - mean) ** 2 for c in siblings) / draws
    deviation = math.sqrt(variance)
    if deviation < LEAST_DEVIATION:
        return dict.fromkeys(advantages, 0.0)
    return {i: a / deviation for i, a in advantages.items()}


def champion(tree: Tree) -> list[Node]:
    """Return the path to the answer that the search gave, root included; without one, down the most visited
    children."""
    if tree.answer is not None:
        return tree.lineage(tree.nodes[tree.answer.node])
    path = [tree.root]
    while children := tree.children(path[-1]):
        path.append(max(children, key=lambda c: (c.visits, c.mean or 0.0, -c.id)))
    return path


def gae(values: Sequence[float], reward: float, lam: float) -> list[float]:
    """Return generalised advantage estimates (Schulman et al. 2016, eq. 16, γ = 1) of a path's T steps, of which the
    last earns `reward`: δ_t = r_t + v_{t+1} - v_t with v_T = 0, A_t = δ_t + λ·A_{t+1}. `values` are v_0, ...,
    v_{T-1}, of the states that the steps were taken in."""
    advantages = [0.0] * len(values)
    after, following = 0.0, reward
    for t in reversed(range(len(values))):
        after = following - values[t] + lam * after
        advantages[t], following = after, values[t]
    return advantages
