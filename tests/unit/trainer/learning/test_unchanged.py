"""Models that a round does not change are neither computed twice, loaded, nor written again."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from fakes_training import TREES, with_value_head, write_release
from ramify_trainer.learning.config import LearningConfig, LoraConfig
from ramify_trainer.learning.learner import Learner
from ramify_trainer.learning.networks import PolicyNetwork

CONFIG = LearningConfig(
    steps_per_round=2,
    tokens_per_batch=24,
    policy_learning_rate=1e-2,
    kl_beta=0.1,
    warmup_steps=0,
    threads=1,
    tracker="none",
)
LORA = {"lora": LoraConfig(rank=4, alpha=8)}
WEIGHTS = "model.safetensors"


@pytest.fixture(name="base")
def _base(tmp_path: Path) -> Iterator[Path]:
    threads = torch.get_num_threads()
    yield write_release(tmp_path / "weights").path
    torch.set_num_threads(threads)


def started(base: Path, reference: Path | None = None, **changes: object) -> Learner:
    config = CONFIG.model_copy(update=changes)
    return Learner.start(config, base / "policy", base / "value", reference or base / "policy", seed=3)


def same_file(one: Path, other: Path) -> bool:
    return (one / WEIGHTS).samefile(other / WEIGHTS)


def test_adapters_need_no_second_copy_of_the_policy_as_reference(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base / "policy", tmp_path / "elsewhere")
    apart = started(base, tmp_path / "elsewhere", **LORA)  # as good, but of another directory: loaded
    learner = started(base, **LORA)
    expected = [apart.round(TREES, seed=i).figures()["policy/kl"] for i in (1, 2)]
    learner.save(tmp_path / "saved")
    shutil.move(base / "policy", tmp_path / "gone")
    resumed = Learner.resume(CONFIG.model_copy(update=LORA), tmp_path / "saved", base / "policy")
    for each in (learner, resumed):
        assert [each.round(TREES, seed=i).figures()["policy/kl"] for i in (1, 2)] == pytest.approx(expected)
    assert expected[1] > 1e-4


def test_a_reference_is_in_memory_only_while_it_is_asked(base: Path) -> None:
    learner = started(base)
    before = policies()
    learner.round(TREES, seed=1)
    assert policies() == before


def test_a_round_that_teaches_the_policy_nothing_loads_no_reference(base: Path, tmp_path: Path) -> None:
    learner = started(base)
    learner.save(tmp_path / "saved")
    resumed = Learner.resume(CONFIG, tmp_path / "saved", tmp_path / "nowhere")
    assert resumed.round([replace(tree, outcomes={}) for tree in TREES], seed=1).steps == 0


def policies() -> int:
    gc.collect()
    return sum(type(thing) is PolicyNetwork for thing in gc.get_objects())


@pytest.mark.parametrize(
    ("setting", "left"), [({"train_value": False}, "value"), ({"train_policy": False}, "policy")]
)
def test_a_model_that_is_not_trained_is_not_loaded_and_its_file_is_shared(
    base: Path, tmp_path: Path, setting: dict[str, object], left: str
) -> None:
    learner = started(base, **setting)
    assert left not in learner._trainees
    learner.round(TREES, seed=1)
    learner.save(tmp_path / "saved")
    learner.export(tmp_path, base)
    for folder in (tmp_path / "saved", tmp_path):
        shared = {part for part in ("policy", "value") if same_file(folder / part, base / part)}
        assert shared == {left}
    resumed = Learner.resume(CONFIG.model_copy(update=setting), tmp_path / "saved", base / "policy")
    resumed.save(tmp_path / "again")
    assert same_file(tmp_path / "again" / left, base / left)


def test_a_value_model_that_only_judges_is_read_and_its_file_is_shared(base: Path, tmp_path: Path) -> None:
    judged = {"objective": "path_ppo", "train_value": False}
    config = CONFIG.model_copy(update=judged)
    learner = started(base, **judged)
    assert learner.round(TREES, seed=1).steps > 0
    learner.save(tmp_path / "saved")
    learner.export(tmp_path, base)
    for folder in (tmp_path / "saved", tmp_path):
        assert same_file(folder / "value", base / "value")
        assert not same_file(folder / "policy", base / "policy")
    assert Learner.resume(config, tmp_path / "saved", base / "policy").round(TREES, seed=2).steps > 0
    adapted = started(base, **LORA)
    adapted.round(TREES, seed=1)
    adapted.save(tmp_path / "adapted")
    with pytest.raises(ValueError, match=r"holds .*lora_A.*, which this configuration does not train"):
        Learner.resume(config, tmp_path / "adapted", base / "policy")


def test_a_configuration_that_trains_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="both false: set one of them to true"):
        LearningConfig(train_policy=False, train_value=False)


def test_weights_below_adapters_are_written_neither_for_the_policy_nor_for_the_value(
    base: Path, tmp_path: Path
) -> None:
    learner = started(base, **LORA)
    learner.round(TREES, seed=1)
    learner.save(tmp_path / "saved")
    assert all(same_file(tmp_path / "saved" / part, base / part) for part in ("policy", "value"))
    learner.export(tmp_path, base)
    assert not any(same_file(tmp_path / part, base / part) for part in ("policy", "value"))


def test_what_adapters_learned_outlives_rounds_in_which_they_rest(base: Path, tmp_path: Path) -> None:
    learner = started(base, **LORA)
    learner.round(TREES, seed=1)
    learner.save(tmp_path / "saved")
    resting = Learner.resume(
        CONFIG.model_copy(update={**LORA, "train_value": False}), tmp_path / "saved", base / "policy"
    )
    resting.save(tmp_path / "rested")
    one, other = (load_file(tmp_path / name / "state.safetensors") for name in ("saved", "rested"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_below_a_value_head_a_frozen_trunk_is_shared(base: Path, tmp_path: Path) -> None:
    trunk = with_value_head(base / "policy", tmp_path / "trunk")
    learner = started(trunk, train_policy=False)
    learner.round(TREES, seed=1)
    learner.save(tmp_path / "saved")
    learner.export(tmp_path, trunk)
    assert same_file(tmp_path / "saved" / "policy", trunk / "policy")
    assert same_file(tmp_path / "policy", trunk / "policy")
    state = load_file(tmp_path / "saved" / "state.safetensors")
    assert not any("weight/model." in name for name in state)
