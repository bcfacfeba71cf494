"""Rates found by trial: as many trials for every arm, and the same ones whether or not they were stopped."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ramify_trainer.errors import TrainerError
from research.compare.config import CompareConfig
from research.compare.points import Point
from research.compare.tune import on_dev, tune, tuned_settings

FLAT = {"name": "flat", "label": "flat", "learning": {"objective": "tree_ppo"}}
MIX = {"name": "mix", "label": "mix", "learning": {"objective": "tree_ppo", "imitate": 1.0}}
SFT = {"name": "sft", "label": "sft", "learning": {"objective": "sft"}}
PEER = {"name": "peer", "label": "peer", "trl": {"generations": 4}}


def of(*arms: dict[str, Any]) -> CompareConfig:
    return CompareConfig.model_validate({"arms": arms, "rounds": 1, "collect": {"problems": 40}})


class Trials:
    """Runs that are the better the nearer their rate is to 1e-3. Stops as by Ctrl-C before run number `stop`."""

    def __init__(self, stop: int | None = None) -> None:
        self.stop = stop
        self.ran: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, config: CompareConfig, folder: Path) -> Sequence[Point]:
        if len(self.ran) == self.stop:
            raise KeyboardInterrupt
        (arm,) = config.arms
        self.ran.append((folder.name, dict(arm.learning)))
        rate = config.learning_of(arm).policy_learning_rate
        mean = 1 / (1 + abs(math.log(rate / 1e-3)))
        return [
            Point(arm=arm.name, seed=0, round=i, greedy=0.0, mean_at_k=i * mean)
            for i in range(config.rounds + 1)
        ]


def test_arms_take_turns_and_begin_with_their_own_values(tmp_path: Path):
    runs = Trials()
    tune(of(FLAT, MIX), 3, 1, tmp_path, runs)
    assert [name for name, _ in runs.ran] == ["flat-0", "mix-0", "flat-1", "mix-1", "flat-2", "mix-2"]
    assert runs.ran[1][1] == {**MIX["learning"], "policy_learning_rate": 3e-4, "clip_high": 0.28}
    rates = [learning["policy_learning_rate"] for _, learning in runs.ran]
    assert len(set(rates)) > 3


def test_trials_that_were_stopped_go_on_as_if_they_had_not_been(tmp_path: Path):
    whole, first, second = Trials(), Trials(stop=7), Trials()
    tune(of(FLAT, MIX), 6, 1, tmp_path / "whole", whole)
    with pytest.raises(KeyboardInterrupt):
        tune(of(FLAT, MIX), 6, 1, tmp_path / "stopped", first)
    tune(of(FLAT, MIX), 6, 1, tmp_path / "stopped", second)
    assert first.ran + second.ran == whole.ran
    assert (tmp_path / "stopped" / "tuned.toml").read_text() == (
        tmp_path / "whole" / "tuned.toml"
    ).read_text()


def test_the_best_values_are_what_a_comparison_takes(tmp_path: Path):
    runs, config = Trials(), of(FLAT, SFT)
    tune(config, 5, 1, tmp_path, runs)
    path = tmp_path / "tuned.toml"
    assert path.read_text().startswith("# 5 trials; mean@k ")
    tuned = config.tuned_by(path)
    assert [arm.learning["objective"] for arm in tuned.arms] == ["tree_ppo", "sft"]
    for arm in tuned.arms:
        tried = [learning["policy_learning_rate"] for name, learning in runs.ran if name.startswith(arm.name)]
        best = min(tried, key=lambda rate: abs(math.log(rate / 1e-3)))
        assert tuned.learning_of(arm).policy_learning_rate == best
        assert (
            dict(arm.learning)["objective"]
            == dict(config.arms[0 if arm.name == "flat" else 1].learning)["objective"]
        )
    assert set(tomllib.loads(path.read_text())["sft"]) == {"policy_learning_rate"}


def test_values_of_an_arm_that_is_not_there_are_refused(tmp_path: Path):
    path = tmp_path / "tuned.toml"
    path.write_text("[mix]\nimitate = 0.5\n")
    assert of(FLAT, MIX).tuned_by(path).arms[1].learning["imitate"] == 0.5
    with pytest.raises(ValueError, match="no arm is called 'mix'"):
        of(FLAT).tuned_by(path)


def test_what_is_tuned_is_what_an_objective_has():
    config = of(FLAT, MIX, SFT, PEER)
    names = [sorted(tuned_settings(config, arm)) for arm in config.arms]
    rate = "policy_learning_rate"
    assert names == [["clip_high", rate], ["clip_high", "imitate", rate], [rate], [rate]]


def test_trials_are_measured_on_dev():
    config = on_dev(
        CompareConfig.read(Path(__file__).parents[3] / "research" / "configs" / "half-the-steps.toml")
    )
    assert (config.held_out.data, config.passes) == ("countdown:dev?numbers=4", None)


def test_an_arm_with_phases_is_refused(tmp_path: Path):
    phased = {**SFT, "learning": {"objective": "sft", "phases": [{"from_round": 2, "objective": "tree_ppo"}]}}
    with pytest.raises(TrainerError, match="'sft' has phases"):
        tune(of(phased), 1, 1, tmp_path, Trials())


def test_one_arm_tried_alone_leaves_what_others_found(tmp_path: Path):
    config = of(FLAT, MIX)
    tune(config, 2, 1, tmp_path, Trials(), only=["flat"])
    runs = Trials()
    tune(config, 2, 1, tmp_path, runs, only=["mix"])
    assert [name for name, _ in runs.ran] == ["mix-0", "mix-1"]
    assert set(tomllib.loads((tmp_path / "tuned.toml").read_text())) == {"flat", "mix"}
    with pytest.raises(TrainerError, match="no arm is called 'flt'"):
        tune(config, 2, 1, tmp_path, Trials(), only=["flt"])
