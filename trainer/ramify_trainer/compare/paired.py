"""Where every run of every arm ended, and what parts any two of one seed, paired by problem."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from ramify_trainer.compare.config import ArmRun, CompareConfig
from ramify_trainer.compare.record import Point
from ramify_trainer.compare.summary import means, steps_to_reach
from ramify_trainer.gating import PolicyScores
from ramify_trainer.loop.measure import read_scores
from ramify_trainer.loop.report import difference
from ramify_trainer.loop.state import State

__all__ = ["by_seed", "differences"]


def by_seed(config: CompareConfig, points: Sequence[Point]) -> list[str]:
    """The end of every finished run, and its steps to the first arm's last mean@k of the same seed."""
    first = config.arms[0]
    lines = [
        f"| arm | seed | mean@k | greedy | with search | steps to the mean@k of {first.label} |",
        "|---|---|---|---|---|---|",
    ]
    for run in config.runs():
        curve, aim = _curve(run, config, points), _curve(ArmRun(first, run.seed), config, points)
        if curve:
            last = curve[-1]
            steps = steps_to_reach(means(curve), "mean_at_k", aim[-1].mean_at_k) if aim else None
            ends = " | ".join(f"{100 * x:.1f}" for x in (last.mean_at_k, last.greedy, last.searched))
            sooner = "never" if steps is None else f"{steps:.0f}"
            lines.append(f"| {run.arm.label} | {run.seed} | {ends} | {sooner} |")
    return lines


def _curve(run: ArmRun, config: CompareConfig, points: Sequence[Point]) -> list[Point]:
    """All points of a run that is finished."""
    found = [p for p in points if (p.arm, p.seed) == (run.arm.name, run.seed)]
    return found if len(found) > config.rounds else []


def differences(config: CompareConfig, folder: Path) -> list[str]:
    """Every arm less every one before it, of one seed, at the end of what is finished in `folder`: points, with 95 %
    bootstrap intervals over problems."""
    lines = ["| at the end, points [95 %] | seed | mean@k | greedy |", "|---|---|---|---|"]
    ends = [(run, scores) for run in config.runs() if (scores := _ended(folder / run.name, config.rounds))]
    for (earlier, theirs), (later, ours) in combinations(ends, 2):
        if earlier.seed == later.seed:
            mean, greedy = difference(ours.mean, theirs.mean), difference(ours.greedy, theirs.greedy)
            lines.append(f"| {later.arm.label} less {earlier.arm.label} | {later.seed} | {mean} | {greedy} |")
    return lines


def _ended(folder: Path, rounds: int) -> PolicyScores | None:
    """The held-out scores of a run's last release; None before its end."""
    state = State.load(folder / "state" / "state.json")
    if state is None or len(state.history) < rounds:
        return None
    return read_scores(folder / "state" / "held_out" / f"{state.incumbent}.json")
