"""Bootstrap intervals over problems, exact in what they resample.

Resampling n problems with replacement draws how often each problem appears from a multinomial; problems that score
alike can be drawn together, so right-or-wrong scores need three bins at most however many problems there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
_CHUNK = 4_000_000
"""Counts held at once; only scores with many different values come near it."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over problems and where it would fall had other problems been drawn."""

    mean: float
    low: float
    """2.5th percentile of the resampled means."""
    high: float
    """97.5th percentile."""
    n: int
    """Problems."""


def bootstrap(scores: Sequence[float], seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """Mean and percentile 95 % interval, problems resampled with replacement. Raises `ValueError` without scores."""
    if not scores:
        raise ValueError("no scores to average")
    values, counts = np.unique(np.asarray(scores, dtype=float), return_counts=True)
    n = int(counts.sum())
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // len(values))
    means = np.concatenate(
        [
            rng.multinomial(n, counts / n, size=min(rows, resamples - done)) @ values / n
            for done in range(0, resamples, rows)
        ]
    )
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(values @ counts / n), float(low), float(high), n)


def paired_difference(
    ours: Mapping[str, float], theirs: Mapping[str, float], seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
    """Mean of ours - theirs over the problems that both have, with its interval.

    Pairing is by problem, so what makes a problem hard for both cancels. Raises `ValueError` where they share none.
    """
    shared = sorted(ours.keys() & theirs.keys())
    return bootstrap([ours[key] - theirs[key] for key in shared], seed, resamples)
