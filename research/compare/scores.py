"""Held-out scores of a finished run by problem, round by round."""

from __future__ import annotations

from pathlib import Path

from ramify_trainer.gate.policy_scores import PolicyScores, read_scores
from ramify_trainer.loop.state import STATE, State
from research.compare.points import POINTS, finished


def scores_of(folder: Path, rounds: int) -> list[PolicyScores]:
    """Return the scores of the base and of every round's policy; none before the run's end."""
    if not finished(folder / POINTS, rounds):
        return []
    state = State.load(folder / "state" / STATE)
    # Loops name scores after releases, of which each round served one; TRL's runs after rounds.
    names = [str(i) for i in range(rounds + 1)] if state is None else state.served
    kept = [read_scores(folder / "state" / "held_out" / f"{name}.json") for name in names]
    return [scores for scores in kept if scores is not None]
