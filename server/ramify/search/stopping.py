"""Stop early: when more simulations could hardly change the answer. Off in evaluation and collection."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ramify.search.records import Answer, EarlyStop
from ramify.search.tree import Tree


def settled(tree: Tree, ranked: Sequence[Answer], left: int) -> bool:
    """Whether the leading answer of `ranked` (as the search's own answer rule has it) may be given now.

    `verified`: a verifier has accepted an answer. `unbeatable`: even if each of the `left` simulations brought one
    full vote for the second, it would stay behind. `posterior`: the leader is the commoner of the two with a
    probability above the threshold (Aggarwal et al. 2023, "adaptive consistency", the Beta criterion).
    """
    kind: EarlyStop = tree.params.early_stop
    if kind == "off" or not ranked:
        return False
    if kind == "verified":
        return any(node.outcome == 1.0 and node.outcome_source == "verifier" for node in tree.complete())
    votes = [answer.votes * _total(tree) for answer in ranked if answer.final is not None]
    if not votes:
        return False
    first, second = votes[0], votes[1] if len(votes) > 1 else 0.0
    if kind == "unbeatable":
        return first - second > left
    return leads(first, second) > tree.params.early_stop_threshold


def leads(first: float, second: float) -> float:
    """P(p > 1/2) for p ~ Beta(first + 1, second + 1), by the normal approximation to the Beta; exact at equality."""
    a, b = first + 1, second + 1
    mean = a / (a + b)
    deviation = math.sqrt(a * b / ((a + b) ** 2 * (a + b + 1)))
    return 0.5 * (1 + math.erf((mean - 0.5) / (deviation * math.sqrt(2))))


def _total(tree: Tree) -> float:
    """Votes cast: judgements under `orm_vote`, draws otherwise."""
    if tree.params.answer != "orm_vote":
        return float(len(tree.completions))
    by_verifier = tree.params.grader == "verifier"
    nodes = (tree.nodes[c.node] for c in tree.completions)
    return sum((n.outcome if by_verifier else n.value) or 0.0 for n in nodes)
