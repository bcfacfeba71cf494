"""Held-out scores by problem: measured outside a loop, and read of a finished run, round by round."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ramify_trainer.compute_thread import ComputeThread
from ramify_trainer.config import MeasureConfig, SamplerConfig
from ramify_trainer.gate.policy_scores import PolicyScores, read_scores, score_policy
from ramify_trainer.loop.state import STATE, State
from ramify_trainer.progress import Progress
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


def score(
    policy: Path,
    config: MeasureConfig,
    seed: int,
    kept: Path,
    keep: int = 0,
    sampler: SamplerConfig | None = None,
    told: Progress | None = None,
    adapter: Path | None = None,
) -> PolicyScores:
    """Run `score_policy`, whose arguments these are, on a thread of its own, and wait for it."""
    with ComputeThread() as worker:
        return asyncio.run(score_policy(policy, config, seed, kept, worker, keep, sampler, told, adapter))
