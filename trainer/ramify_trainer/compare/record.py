"""What an arm had come to after each round, kept on disk as soon as it is known."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter

from ramify_trainer.loop.state import replace

__all__ = ["Point", "keep", "read"]


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
    searched: float
    """With search."""
    training: dict[str, float] = {}
    """The learner's figures of this round."""
    seconds: float = 0.0
    """Of this round, without what was measured."""


_POINTS = TypeAdapter(list[Point])


def read(path: Path) -> list[Point]:
    """An arm's points, the base first; none where it has not begun."""
    return _POINTS.validate_json(path.read_bytes()) if path.exists() else []


def keep(points: list[Point], path: Path) -> None:
    """Durably, all or nothing."""
    replace(path, _POINTS.dump_json(points, indent=1))
