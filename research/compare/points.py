"""Points: figures of an arm after each round, kept on disk as soon as they are known; means over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

from ramify.files import replace

POINTS = "points.json"
"""File of a run's points, in its folder."""


class Point(BaseModel):
    """One arm, one seed, after a round. Accuracies in [0, 1]."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    arm: str
    seed: int
    round: int
    """0 is the base."""
    steps: int = 0
    """Optimizer steps so far."""
    tokens: int = 0
    """Generated for training so far."""
    greedy: float
    mean_at_k: float
    searched: float | None = None
    """With search; None if that was not measured."""
    training: dict[str, float] = {}
    """The learner's figures of this round."""
    seconds: float = 0.0
    """Seconds of this round, measurements left out."""


_POINTS = TypeAdapter(list[Point])


def read(path: Path) -> list[Point]:
    """Return an arm's points, the base first; none if it has not begun."""
    return _POINTS.validate_json(path.read_bytes()) if path.exists() else []


def finished(path: Path, rounds: int) -> bool:
    """Tell whether an arm has come through all its rounds."""
    return len(read(path)) > rounds


def keep(points: list[Point], path: Path) -> None:
    """Write an arm's points durably, all or nothing."""
    replace(path, _POINTS.dump_json(points, indent=1))


Figure = Literal["greedy", "mean_at_k", "searched"]


@dataclass(frozen=True, slots=True)
class Mean:
    """An arm after a round, over those of its seeds that came so far. Accuracies in [0, 1]."""

    arm: str
    round: int
    seeds: int
    steps: float
    tokens: float
    """Generated for training so far."""
    greedy: float
    mean_at_k: float
    searched: float | None
    seconds: float
    """Seconds of all rounds so far."""


def means(points: Sequence[Point]) -> list[Mean]:
    """Return means by arm, in the order in which the arms are met, then by round."""
    arms: dict[str, list[Point]] = {}
    for point in points:
        arms.setdefault(point.arm, []).append(point)
    return [_mean(arm, i, mine) for arm, mine in arms.items() for i in sorted({p.round for p in mine})]


def _mean(arm: str, round_: int, points: Sequence[Point]) -> Mean:
    here = [p for p in points if p.round == round_]
    known = {p.seed for p in here}
    seconds = sum(p.seconds for p in points if p.round <= round_ and p.seed in known)

    def over_seeds(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    searched = [p.searched for p in here if p.searched is not None]

    return Mean(
        arm=arm,
        round=round_,
        seeds=len(here),
        steps=over_seeds([p.steps for p in here]),
        tokens=over_seeds([p.tokens for p in here]),
        greedy=over_seeds([p.greedy for p in here]),
        mean_at_k=over_seeds([p.mean_at_k for p in here]),
        searched=over_seeds(searched) if len(searched) == len(here) else None,
        seconds=seconds / len(here),
    )


def steps_to_reach(curve: Sequence[Mean], figure: Figure, level: float) -> float | None:
    """Return the optimizer steps at which an arm's curve first comes to `level`; None if it never does."""
    return steps_to_level(
        [point.steps for point in curve], [getattr(point, figure) for point in curve], level
    )


def steps_to_level(steps: Sequence[float], heights: Sequence[float], level: float) -> float | None:
    """Return the place on a curve at which it first comes to `level`, straight lines between its points; None if it
    never does."""
    for i, here in enumerate(heights):
        if here >= level:
            if i == 0:
                return steps[0]
            low, begin = heights[i - 1], steps[i - 1]
            return begin + (steps[i] - begin) * (level - low) / (here - low)
    return None
