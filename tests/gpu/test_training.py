"""Training on the device: steps in full, with checkpoints and with adapters, and the choice of a canary."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from gpu_checks import CheckTable, answer_trees, changed_policy, mebibytes
from ramify.weights import Release, require_alike
from ramify_trainer.learning.config import LearningConfig
from ramify_trainer.learning.labels import LabelledTree
from ramify_trainer.learning.learner import Learner
from ramify_trainer.learning.memory import MeasuredStep, measured_step
from ramify_trainer.loop.release import PROBES, compare_with_parent

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]
TOKENS = {"cuda": 4_096, "cpu": 128}
"""Tokens of an optimizer step."""
WAYS: dict[str, dict[str, Any]] = {
    "step": {},
    "step with checkpoints": {"gradient_checkpointing": True},
    "step with adapters": {"lora": {"rank": 16}},
    "step with adapters and checkpoints": {"lora": {"rank": 16}, "gradient_checkpointing": True},
}


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """Return all tensors of a model, which may be in several files."""
    return {name: t for file in folder.glob("*.safetensors") for name, t in load_file(file).items()}


def learning(device: str, **changes: Any) -> LearningConfig:
    tokens = TOKENS[device]
    precision = "bf16" if device == "cuda" else "fp32"
    fixed: dict[str, Any] = {"tokens_per_batch": tokens, "max_pack_tokens": tokens, "precision": precision}
    fixed |= {"kl_beta": 0.0, "warmup_steps": 0, "tracker": "none"}
    return LearningConfig.model_validate(fixed | changes)


@pytest.fixture(scope="module")
def steps() -> dict[str, MeasuredStep]:
    """Steps that were measured already, by their way."""
    return {}


@pytest.mark.parametrize("way", WAYS)
def test_a_training_step_fits(
    way: str, base: Release, device: str, table: CheckTable, steps: dict[str, MeasuredStep]
) -> None:
    measured = measured_step(base.policy_path, None, learning(device, **WAYS[way]))
    table.add(way, peak_memory=mebibytes(measured.peak), seconds_a_step=f"{measured.seconds_per_step:.3f} s")
    assert measured.peak >= measured.before >= 0
    assert measured.seconds_per_step > 0
    steps[way] = measured
    plain = steps.get(way.removesuffix(" and checkpoints").removesuffix(" with checkpoints"))
    if device == "cuda" and "checkpoints" in way and plain is not None:
        assert measured.peak < plain.peak, "checkpoints save no memory"


def test_adapters_are_trained_and_merged_into_a_policy_that_can_be_served(
    base: Release, device: str, table: CheckTable, tmp_path: Path
) -> None:
    config = learning(device, lora={"rank": 16}, steps_per_round=2, epochs=2.0, train_value=False)
    policy, value = base.policy_path, base.path / "value"
    learner = Learner.start(config, policy, value, policy, seed=0)
    trees = [
        LabelledTree(tree, {done.node: float(i) for i, done in enumerate(tree.completions)})
        for tree in answer_trees(8)
    ]
    began = time.perf_counter()
    metrics = learner.round(trees, seed=0)
    seconds = time.perf_counter() - began
    learner.export(tmp_path, base.path)
    table.add("adapters", steps=str(metrics.steps), seconds=f"{seconds:.2f} s")
    assert metrics.steps
    before, after = (tensors_of(folder) for folder in (policy, tmp_path / "policy"))
    assert before.keys() == after.keys()
    assert any(not before[name].equal(after[name]) for name in before)
    require_alike(base.path, tmp_path)


def test_a_canary_is_chosen(base: Release, table: CheckTable, tmp_path: Path) -> None:
    policy = changed_policy(base, tmp_path / "policy")
    began = time.perf_counter()
    found = compare_with_parent(policy, base.path / "value", base, answer_trees(64)).canary
    table.add("choice of a canary", seconds=f"{time.perf_counter() - began:.2f} s", probes=str(len(found)))
    assert 0 < len(found) <= PROBES
