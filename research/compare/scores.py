"""Held-out scores by problem: measured outside a loop, and read of a finished run, round by round."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from ramify_trainer.compute_thread import ComputeThread
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


def score(asked: Callable[[ComputeThread], Coroutine[Any, Any, PolicyScores]]) -> PolicyScores:
    """Wait for a policy's scores. asked: `score_policy` with all but its worker, which is a thread of its own here."""
    with ComputeThread() as worker:
        return asyncio.run(asked(worker))
