"""Bootstrap intervals over problems, for evaluations and for the trainer's gate.

A resample draws as many problems as there are, with replacement, so how often each problem appears is multinomial.
Problems that score alike can be drawn together: right-or-wrong scores need three bins at most, however many problems
there are. Comparisons are paired by problem, so that what makes a problem hard for both sides cancels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RESAMPLES = 4_000
"""Puts the ends of a 95 % interval within 5 % of the standard error, and stays affordable for the AUC of a gate."""
_COUNTS = 4_000_000
"""Counts held at once."""
_WEIGHTINGS = 100
"""Resamples yielded at once: each weights thousands of texts."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over problems, and the interval in which it would fall had other problems been drawn."""

    mean: float
    low: float
    """2.5th percentile of the resampled means."""
    high: float
    """97.5th percentile."""
    n: int
    """Number of problems."""

    def percent(self, *, signed: bool = False) -> str:
        """Write `58.3 [55.1, 61.4]`, in percent, or in points with their sign for a difference."""
        form = "{:+.1f} [{:+.1f}, {:+.1f}]" if signed else "{:.1f} [{:.1f}, {:.1f}]"
        return form.format(*(100 * x for x in (self.mean, self.low, self.high)))


def bootstrap(scores: Sequence[float], seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """Return the mean and its 95 % percentile interval. Raises `ValueError` without scores."""
    means = _resampled_means(scores, seed, resamples)
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(math.fsum(scores) / len(scores), float(low), float(high), len(scores))


def upper_bound(scores: Sequence[float], seed: int = 0, resamples: int = RESAMPLES) -> float:
    """Return the upper end of the one-sided 95 % interval of the mean: it is no higher with 95 % confidence.

    Raises `ValueError` without scores.
    """
    return float(np.percentile(_resampled_means(scores, seed, resamples), 95))


def paired_difference(
    ours: Mapping[str, float], theirs: Mapping[str, float], seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
    """Return the mean of ours - theirs over the problems that both have, with its interval.

    Raises `ValueError` if they share none.
    """
    shared = sorted(ours.keys() & theirs.keys())
    return bootstrap([ours[key] - theirs[key] for key in shared], seed, resamples)


def auc(values: NDArray[np.floating[Any]], right: NDArray[np.bool_]) -> float | None:
    """Return the chance that a right answer has a higher value than a wrong one, ties counting half (Mann-Whitney U);
    `None` if there are none of either. values, right: [N]."""
    wrong = np.sort(values[~right])
    if not 0 < len(wrong) < len(values):
        return None
    below, not_above = (np.searchsorted(wrong, values[right], side) for side in ("left", "right"))
    return float((below + not_above).mean() / 2 / len(wrong))


def resampled_weights(problems: int, seed: int = 0, resamples: int = RESAMPLES) -> Iterator[Floats]:
    """Yield [R, problems], how often each problem appears in each of R resamples, `resamples` in all.

    For statistics that are no mean of scores, such as an AUC.
    """
    return _counts(np.full(problems, 1 / problems), problems, seed, resamples, _WEIGHTINGS)


def _resampled_means(scores: Sequence[float], seed: int, resamples: int) -> Floats:
    if not len(scores):
        raise ValueError("no scores to average")
    values, counts = np.unique(np.asarray(scores, dtype=float), return_counts=True)
    n = len(scores)
    rows = max(1, _COUNTS // len(values))
    return np.concatenate([drawn @ values / n for drawn in _counts(counts / n, n, seed, resamples, rows)])


def _counts(shares: Floats, n: int, seed: int, resamples: int, rows: int) -> Iterator[Floats]:
    """Yield [R, bins], the counts of n draws from bins of these shares; R is at most `rows`."""
    rng = np.random.default_rng(seed)
    for done in range(0, resamples, rows):
        yield rng.multinomial(n, shares, size=min(rows, resamples - done)).astype(float)
