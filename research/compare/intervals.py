"""Arms against the first one over all seeds: at the end, and in the steps and tokens that each takes to where that one
ends.

The intervals hold two kinds of luck: seeds are drawn anew, with replacement, and in each of them problems, the same for
both arms.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ramify_trainer.gate.policy_scores import PolicyScores
from research.compare.config import Arm, ArmRun, CompareConfig
from research.compare.points import Point, first_at_level
from research.compare.scores import scores_of

Floats = NDArray[np.float64]
FIGURES = ("mean", "greedy")
"""Attributes of `PolicyScores`: mean@k, and greedy accuracy."""
RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class Pair:
    """An arm and the first one: with one seed, or as means over problems and seeds."""

    ours: Floats
    theirs: Floats
    """Scores: [problems, rounds + 1], means [rounds + 1]."""
    steps: Floats
    tokens: Floats
    """[rounds + 1], the arm's steps, and its policy and value tokens, after each round, as shares of the first one's at
    its end; NaN: not known."""


def over_seeds(config: CompareConfig, out: Path, points: Sequence[Point]) -> list[str]:
    """Tabulate every arm that has finished a seed of the first arm's: what it has more at its end, and after half of
    that one's steps, in points; and the shares of that one's steps, and of its policy and value tokens, after which it
    first has what that one ends with. 95 % intervals; no shares of tokens that are not known."""
    first, *others = config.arms
    heads = [f"against {first.label} [95 %]", "seeds", "mean@k, points", "greedy, points"]
    heads += ["mean@k in half of its steps", "greedy in half of its steps"]
    heads += ["share of its steps to its mean@k", "to its greedy"]
    heads += ["share of its policy + value tokens to its mean@k", "to its greedy"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for arm in others:
        both = [_pairs(config, arm, out, figure, points) for figure in FIGURES]
        if seeds := len(both[0]):
            drawn = [[_mean(pairs), *_resampled(pairs)] for pairs in both]
            cells = [_gained(means, share) for share in (math.inf, 0.5) for means in drawn]
            cells += [_share(means, what) for what in ("steps", "tokens") for means in drawn]
            lines.append(f"| {arm.label} | {seeds} | {' | '.join(cells)} |")
    return lines


def _pairs(config: CompareConfig, arm: Arm, out: Path, figure: str, points: Sequence[Point]) -> list[Pair]:
    found: list[Pair] = []
    for seed in range(min(arm.seeds, config.arms[0].seeds)):
        runs = ArmRun(arm, seed), ArmRun(config.arms[0], seed)
        ours, theirs = (scores_of(out / run.name, config.rounds_of(run.arm)) for run in runs)
        if ours and theirs:
            spent, whole = (_spent(run, points) for run in runs)
            scores = _by_problem(ours, figure), _by_problem(theirs, figure)
            found.append(Pair(*scores, *(spent / whole[:, -1:])))
    return found


def _by_problem(rounds: Sequence[PolicyScores], figure: str) -> Floats:
    """Return scores [problems, rounds + 1], problems in the order of their ids."""
    scores = [getattr(one, figure) for one in rounds]
    return np.array([[score[problem] for score in scores] for problem in sorted(scores[0])])


def _spent(run: ArmRun, points: Sequence[Point]) -> Floats:
    """Return steps, and policy and value tokens, of a run after each round, [2, rounds + 1]."""
    own = [point for point in points if (point.arm, point.seed) == (run.arm.name, run.seed)]
    return np.array([[p.steps for p in own], [p.searching_tokens for p in own]], dtype=np.float64)


def _gained(means: Sequence[Pair], share: float) -> str:
    """Write what the arm has more, after this share of the first arm's steps or at its own end, than that one at its
    end. means: as measured, and then as they might have been."""
    gains = [100 * (np.interp(share, mean.steps, mean.ours) - mean.theirs[-1]) for mean in means]
    low, high = np.percentile(gains[1:], [2.5, 97.5])
    return f"{gains[0]:+.1f} [{low:+.1f}, {high:+.1f}]"


def _share(means: Sequence[Pair], what: str) -> str:
    """Write the share of the first arm's steps or tokens after which the arm first has what that one ends with; nothing
    if it is not known."""
    if not np.isfinite(getattr(means[0], what)).all():
        return ""
    shares = [_reached(mean, getattr(mean, what)) for mean in means]
    # Sorted ranks rather than interpolation, which knows no infinity.
    low, high = np.percentile(shares[1:], [2.5, 97.5], method="inverted_cdf")
    return f"{_named(shares[0])} [{_named(low)}, {_named(high)}]"


def _reached(mean: Pair, places: Floats) -> float:
    """Return where the arm first has what the first one ends with; infinity if it never does."""
    found = first_at_level(places.tolist(), mean.ours.tolist(), float(mean.theirs[-1]))
    return math.inf if found is None else found


def _named(share: float) -> str:
    return "never" if math.isinf(share) else f"{share:.2f}"


def _mean(pairs: Sequence[Pair]) -> Pair:
    """Return the means over problems and seeds."""
    return _joined([(pair, None) for pair in pairs])


def _resampled(pairs: Sequence[Pair]) -> Iterator[Pair]:
    """Yield the means as they might have been: other seeds, and in each other problems."""
    rng = np.random.default_rng(0)
    for _ in range(RESAMPLES):
        drawn = [pairs[seed] for seed in rng.integers(len(pairs), size=len(pairs))]
        counts = [len(pair.ours) for pair in drawn]
        yield _joined(
            [(pair, rng.multinomial(n, np.full(n, 1 / n))) for pair, n in zip(drawn, counts, strict=True)]
        )


def _joined(drawn: Sequence[tuple[Pair, NDArray[np.int64] | None]]) -> Pair:
    """Return the mean over seeds, each with how often its problems count; None: once."""
    return Pair(
        np.mean([np.average(pair.ours, axis=0, weights=times) for pair, times in drawn], axis=0),
        np.mean([np.average(pair.theirs, axis=0, weights=times) for pair, times in drawn], axis=0),
        np.mean([pair.steps for pair, _ in drawn], axis=0),
        np.mean([pair.tokens for pair, _ in drawn], axis=0),
    )
