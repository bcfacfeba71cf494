"""Whether a candidate may be served: not worse than the incumbent, nor than the best so far, by more than a margin.

Both comparisons are paired by problem, on the dev split, without search. Comparing with the best so far as well keeps a
margin from ratcheting down: a series of candidates each a little worse than the last would otherwise all pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000

Scores = Mapping[str, float]
"""Problem id to score in [0, 1]: 0 or 1 greedily, the share of right answers for mean@k."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A policy on the dev problems, without search."""

    greedy: Scores
    mean: Scores
    """mean@k."""

    @property
    def level(self) -> float:
        """Greedy accuracy and mean@k, averaged: what makes a release the best so far. [0, 1]"""
        return sum(self.figures().values()) / 2

    def figures(self) -> dict[str, float]:
        """Means over the problems, [0, 1]."""
        return {
            "greedy": sum(self.greedy.values()) / len(self.greedy),
            "mean_at_k": sum(self.mean.values()) / len(self.mean),
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidate less the other, over the same problems."""

    against: str
    """`incumbent` or `best`."""
    figure: str
    """`greedy` or `mean`."""
    difference: float
    low: float
    """Lower end of the one-sided 95 % bootstrap interval."""


@dataclass(frozen=True, slots=True)
class Decision:
    promoted: bool
    comparisons: tuple[Comparison, ...]
    margin: float

    @property
    def reason(self) -> str:
        """One line for people."""
        worst = min(self.comparisons, key=lambda c: c.low)
        verdict = "promoted" if self.promoted else "rejected"
        return (
            f"{verdict}: at worst {worst.figure} {worst.difference:+.3f} against the {worst.against}, "
            f"lower bound {worst.low:+.3f}, margin {-self.margin:+.3f}"
        )

    def figures(self) -> dict[str, float]:
        """For the record."""
        found = {"promoted": float(self.promoted), "margin": self.margin}
        for c in self.comparisons:
            found[f"{c.figure}_against_{c.against}"] = c.difference
            found[f"{c.figure}_against_{c.against}_low"] = c.low
        return found


def decide(candidate: Measured, incumbent: Measured, best: Measured, margin: float, seed: int) -> Decision:
    """Promoted only where every lower bound is above -margin. Raises `ValueError` where problems differ."""
    found = tuple(
        _compare(against, figure, getattr(candidate, figure), getattr(other, figure), seed)
        for against, other in (("incumbent", incumbent), ("best", best))
        for figure in ("greedy", "mean")
    )
    return Decision(all(c.low > -margin for c in found), found, margin)


def _compare(against: str, figure: str, ours: Scores, theirs: Scores, seed: int) -> Comparison:
    if not ours or ours.keys() != theirs.keys():
        raise ValueError(f"{figure}: the candidate and the {against} were not measured on the same problems")
    differences = np.array([ours[key] - theirs[key] for key in sorted(ours)])
    return Comparison(against, figure, float(differences.mean()), _lower_bound(differences, seed))


def _lower_bound(differences: np.ndarray, seed: int) -> float:
    """5th percentile of the means of resampled problems."""
    values, counts = np.unique(differences, return_counts=True)
    n = int(counts.sum())
    draws = np.random.default_rng(seed).multinomial(n, counts / n, size=RESAMPLES)
    return float(np.percentile(draws @ values / n, 5))
