"""A round's draws in figures: how much they differ, and how many of them are right."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from statistics import fmean

from ramify_trainer.learning.labels import LabelledTree, own_draws

__all__ = ["draw_figures", "pass_at_k"]

KS = (1, 8)
"""Numbers of answers of which one is to be right."""


def draw_figures(trees: Sequence[LabelledTree], correct: float) -> dict[str, float]:
    """Return `entropy`, the mean of -ln μ over all tokens that the policy itself drew and no earlier round has learned
    from, in nats: an estimate of its own; and `pass_at_1` and `pass_at_8`, means over the trees that hold labelled
    answers.

    Answers of a tree share their beginnings and are no independent draws: its pass@k says what the search found, not
    what the policy would without it. correct: the least outcome of a right answer."""
    figures = {}
    sampled = [one for one in trees if one.tree.params.action.kind != "token"]  # those are enumerated
    new = [n for one in sampled for n in one.tree.nodes[1:] if n.id not in one.learned]
    drawn = [(own_draws(n), n.logprobs) for n in new]
    if tokens := sum(times * len(logprobs) for times, logprobs in drawn):
        figures["entropy"] = -sum(times * sum(logprobs) for times, logprobs in drawn) / tokens
    counts = [_counts(one, correct) for one in trees if one.outcomes]
    for k in KS if counts else ():
        figures[f"pass_at_{k}"] = fmean(pass_at_k(n, right, k) for n, right in counts)
    return figures


def pass_at_k(draws: int, right: int, k: int) -> float:
    """Return the chance that one of k answers is right that are chosen from `draws`, of which `right` are (Chen et al.
    2021, eq. 1); with fewer than k, that any is."""
    k = min(k, draws)
    return 1.0 - comb(draws - right, k) / comb(draws, k)


def _counts(labelled: LabelledTree, correct: float) -> tuple[int, int]:
    """Return how many labelled answers were drawn, repeated ones too, and how many of them are right."""
    nodes = labelled.tree.nodes
    drawn = {i: nodes[i].multiplicity for i in labelled.outcomes}
    return sum(drawn.values()), sum(m for i, m in drawn.items() if labelled.outcomes[i] >= correct)
