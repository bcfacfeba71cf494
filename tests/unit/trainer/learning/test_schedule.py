"""Learning rates rise, stay or fall by the step alone; phases change settings by round, step or figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fakes_training import TREES, write_release
from ramify_trainer.config import LoopConfig
from ramify_trainer.learning.config import LearningConfig
from ramify_trainer.learning.learner import Learner
from ramify_trainer.learning.trainee import rate_factor
from ramify_trainer.loop.state import RoundRecord
from ramify_trainer.loop.training import begun_phases

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


def moving(*phases: dict[str, Any], **settings: Any) -> LearningConfig:
    return LearningConfig.model_validate({"phases": phases, **settings})


def rounds(*entropies: float, promoted: bool = True, steps: int = 6) -> list[RoundRecord]:
    return [
        RoundRecord(
            round=i,
            steps=steps * i,
            promoted=promoted,
            training={"policy/entropy": h},
            gate={"greedy": 0.1 * i},
        )
        for i, h in enumerate(entropies, 1)
    ]


def test_each_phase_stands_on_those_before_it() -> None:
    config = moving(
        {"from_round": 2, "objective": "tree_ppo", "imitate": 1.0},
        {"from_round": 4, "imitate": 0.5, "policy_learning_rate": 6e-4},
        objective="sft",
        policy_learning_rate=1.2e-3,
    )
    own = [(c.objective, c.imitate, c.policy_learning_rate) for c in config.over_run]
    assert own == [("sft", 0.0, 1.2e-3), ("tree_ppo", 1.0, 1.2e-3), ("tree_ppo", 0.5, 6e-4)]
    assert [begun_phases(config, rounds(*[0.5] * n)) for n in range(5)] == [0, 1, 1, 2, 2]
    assert all(c.phases == () for c in config.over_run)


def test_a_phase_by_steps_counts_those_behind_what_is_served() -> None:
    config = moving({"from_step": 12, "imitate": 0.5})
    assert [begun_phases(config, rounds(*[0.5] * n)) for n in range(4)] == [0, 0, 1, 1]
    assert begun_phases(config, rounds(0.5, 0.5, 0.5, promoted=False)) == 0


def test_a_phase_by_a_figure_begins_once_and_stays() -> None:
    config = moving(
        {"figure": "policy/entropy", "below": 0.2, "imitate": 0.5},
        {"figure": "gate/greedy", "above": 0.35, "imitate": 0},
    )
    assert [begun_phases(config, rounds(*[0.3, 0.1, 0.3, 0.3][:n])) for n in range(5)] == [0, 0, 1, 1, 2]


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), max_size=8), st.integers(1, 9), st.floats(0, 1))
def test_phases_never_go_back(entropies: list[float], start: int, level: float) -> None:
    config = moving(
        {"figure": "policy/entropy", "below": level, "imitate": 1}, {"from_round": start, "imitate": 2}
    )
    history = rounds(*entropies)
    begun = [begun_phases(config, history[:n]) for n in range(len(history) + 1)]
    assert begun == sorted(begun)


@pytest.mark.parametrize(
    ("phases", "fault"),
    [
        ([{"imitate": 1}], "give one of from_round, from_step and figure"),
        ([{"from_round": 2, "from_step": 3, "imitate": 1}], "give one of from_round, from_step and figure"),
        ([{"from_round": 2, "below": 0.1, "imitate": 1}], "give below or above with figure"),
        ([{"figure": "policy/entropy", "imitate": 1}], "give below or above with figure"),
        (
            [{"figure": "policy/entropi", "below": 1, "imitate": 1}],
            "'policy/entropy', 'policy/log_ratio_squared'",
        ),
        ([{"from_round": 2}], r"give a setting of \[learning\] to change"),
        ([{"from_round": 2, "imitation": 1}], r"imitation: \[learning\] has no such setting"),
        (
            [{"from_round": 2, "optimizer": "adamw"}],
            "optimizer stays for the whole run; what can change: objective",
        ),
        (
            [{"from_round": 2, "imitate": -1}],
            r"phases\.0: imitate Input should be greater than or equal to 0",
        ),
        ([{"from_round": 2, "objective": "sft", "imitate": 1}], r"phases\.0: Value error, imitate is 1"),
        (
            [{"from_round": 3, "imitate": 1}, {"from_round": 3, "imitate": 2}],
            r"from_round must rise from phase to phase, not \[3, 3\]",
        ),
    ],
)
def test_phases_that_cannot_be_are_refused_at_the_start(phases: list[dict[str, Any]], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        moving(*phases)


def test_a_teacher_is_imitated_in_every_phase() -> None:
    learning = {"objective": "sft", "phases": [{"from_round": 3, "objective": "tree_ppo"}]}
    with pytest.raises(ValidationError, match="'tree_ppo', which compares the policy with its own draws"):
        LoopConfig.model_validate({"teacher": {"release": "shipped"}, "learning": learning})
