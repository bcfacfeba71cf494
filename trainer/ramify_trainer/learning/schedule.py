"""The course of the learning rates over a run: a function of the step alone, so that a run that goes on after a restart
has the rates of one that was never stopped."""

from __future__ import annotations

import math

from ramify_trainer.learning.config import LearningConfig

__all__ = ["rate_factor"]


def rate_factor(step: int, config: LearningConfig) -> float:
    """Return what the learning rates are multiplied by in an optimizer step; `step` were taken before it.

    They rise in a line to 1 over `warmup_steps`; from there to `schedule_steps` they stay, or fall to `schedule_floor`
    in a line or along half a cosine (Loshchilov & Hutter 2017, without restarts), and then stay."""
    warmup, floor = config.warmup_steps, config.schedule_floor
    if step < warmup:
        return (step + 1) / warmup
    if config.schedule_steps is None:
        return 1.0
    done = min(1.0, (step - warmup) / (config.schedule_steps - warmup))
    left = 1 - done if config.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return floor + (1 - floor) * left
