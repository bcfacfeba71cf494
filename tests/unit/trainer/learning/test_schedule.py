"""The learning rates rise, stay or fall by the step alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from fakes_training import TREES, write_release
from ramify_trainer.learning.config import LearningConfig
from ramify_trainer.learning.learner import Learner
from ramify_trainer.learning.trainee import rate_factor

STEPS = (0, 1, 3, 4, 6, 8, 12, 100)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.25, 0.5, 1, 1, 1, 1, 1, 1]),
        ({"schedule": "linear", "schedule_steps": 12}, [0.25, 0.5, 1, 1, 0.775, 0.55, 0.1, 0.1]),
        (
            {"schedule": "cosine", "schedule_steps": 12, "schedule_floor": 0},
            [0.25, 0.5, 1, 1, 0.853553, 0.5, 0, 0],
        ),
    ],
    ids=["constant", "linear", "cosine"],
)
def test_rates_over_a_run(settings: dict[str, object], expected: list[float]) -> None:
    config = LearningConfig.model_validate({"warmup_steps": 4, **settings})
    assert [rate_factor(step, config) for step in STEPS] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"schedule": "linear"}, "give both, or neither"),
        ({"schedule_steps": 100}, "give both, or neither"),
        ({"schedule": "cosine", "schedule_steps": 10}, "it must be above warmup_steps, 10"),
    ],
)
def test_a_schedule_without_an_end_is_refused(settings: dict[str, object], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        LearningConfig.model_validate(settings)


def test_a_learner_follows_the_schedule_and_leaves_no_gradients(tmp_path: Path) -> None:
    base = write_release(tmp_path).path
    config = LearningConfig(
        steps_per_round=3,
        tokens_per_batch=24,
        kl_beta=0,
        warmup_steps=0,
        schedule="linear",
        schedule_steps=4,
        threads=1,
        tracker="none",
    )
    learner = Learner.start(config, base / "policy", base / "value", base / "policy", seed=3)
    learner.round(TREES[:4], seed=1)
    for trainee in learner._trainees.values():
        assert [group["lr"] for group in trainee.optimizer.param_groups] == pytest.approx([3e-4 * 0.55])
        assert all(p.grad is None for p in trainee.network.parameters())
