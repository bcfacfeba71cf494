"""Arms against the first one over all seeds: at the end, and in the steps that each takes to where that one ends.

The intervals hold two kinds of luck: seeds are drawn anew, with replacement, and in each of them problems, the same for
both arms.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ramify_trainer.gate.policy_scores import PolicyScores
from research.compare.config import Arm, ArmRun, CompareConfig
from research.compare.points import steps_to_level
from research.compare.scores import scores_of

Floats = NDArray[np.float64]
Curves = list[tuple[Floats, Floats]]
"""By seed, an arm's scores and the first arm's, [problems, rounds + 1]."""
FIGURES = ("mean", "greedy")
"""Attributes of `PolicyScores`: mean@k, and greedy accuracy."""
RESAMPLES = 2_000


def over_seeds(config: CompareConfig, out: Path) -> list[str]:
    """Tabulate every arm that has finished a seed of the first arm's: what it has more at the end, in points, and the
    share of the first arm's steps after which it first has what that one ends with. 95 % intervals."""
    first, *others = config.arms
    heads = [f"against {first.label} [95 %]", "seeds", "mean@k, points", "greedy, points"]
    heads += ["share of its steps to its mean@k", "to its greedy"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for arm in others:
        mean, greedy = (_curves(config, arm, out, figure) for figure in FIGURES)
        if mean:
            cells = [_gained(mean), _gained(greedy), _share(mean), _share(greedy)]
            lines.append(f"| {arm.label} | {len(mean)} | {' | '.join(cells)} |")
    return lines


def _curves(config: CompareConfig, arm: Arm, out: Path, figure: str) -> Curves:
    found: Curves = []
    for seed in range(min(arm.seeds, config.arms[0].seeds)):
        runs = ArmRun(arm, seed), ArmRun(config.arms[0], seed)
        ours, theirs = (scores_of(out / run.name, config.rounds) for run in runs)
        if ours and theirs:
            found.append((_by_problem(ours, figure), _by_problem(theirs, figure)))
    return found


def _by_problem(rounds: Sequence[PolicyScores], figure: str) -> Floats:
    """Return scores [problems, rounds + 1], problems in the order of their ids."""
    scores = [getattr(one, figure) for one in rounds]
    return np.array([[score[problem] for score in scores] for problem in sorted(scores[0])])


def _gained(curves: Curves) -> str:
    """Write what the arm has more at the end."""
    ours, theirs = _averages(curves)
    gains = [100 * (mine[-1] - other[-1]) for mine, other in _resampled(curves)]
    low, high = np.percentile(gains, [2.5, 97.5])
    return f"{100 * (ours[-1] - theirs[-1]):+.1f} [{low:+.1f}, {high:+.1f}]"


def _share(curves: Curves) -> str:
    """Write the share of all steps after which the arm first has what the first one ends with."""
    drawn = [_reached(*pair) for pair in _resampled(curves)]
    # Sorted ranks rather than interpolation, which knows no infinity.
    low, high = np.percentile(drawn, [2.5, 97.5], method="inverted_cdf")
    return f"{_named(_reached(*_averages(curves)))} [{_named(low)}, {_named(high)}]"


def _reached(ours: Floats, theirs: Floats) -> float:
    """Return that share; infinity if the arm never gets there. Every round has equally many steps."""
    found = steps_to_level(np.linspace(0, 1, len(ours)).tolist(), ours.tolist(), float(theirs[-1]))
    return math.inf if found is None else found


def _named(share: float) -> str:
    return "never" if math.isinf(share) else f"{share:.2f}"


def _averages(curves: Curves) -> tuple[Floats, Floats]:
    """Return the two curves [rounds + 1], means over problems and seeds."""
    ours, theirs = (np.mean([pair[side].mean(axis=0) for pair in curves], axis=0) for side in (0, 1))
    return ours, theirs


def _resampled(curves: Curves) -> Iterator[tuple[Floats, Floats]]:
    """Yield the two curves as they might have been: other seeds, and in each other problems."""
    rng = np.random.default_rng(0)
    for _ in range(RESAMPLES):
        drawn = []
        for seed in rng.integers(len(curves), size=len(curves)):
            ours, theirs = curves[seed]
            weights = rng.multinomial(len(ours), np.full(len(ours), 1 / len(ours))) / len(ours)
            drawn.append((weights @ ours, weights @ theirs))
        ours, theirs = np.mean(drawn, axis=0)
        yield ours, theirs
