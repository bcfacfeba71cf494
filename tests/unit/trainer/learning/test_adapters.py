"""Adapters of the policy as a candidate of their own: written, added to the base, trained on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fakes_training import TREES, write_release
from ramify.weights import ADAPTER, Details, Release, publish, require_alike
from ramify.weights.adapter import WEIGHTS
from ramify_trainer.gate.unserved import policy_in
from ramify_trainer.learning.adapters import base_of
from ramify_trainer.learning.config import LearningConfig, LoraConfig
from ramify_trainer.learning.learner import Learner

LORA = LoraConfig(rank=4, alpha=8, publish="adapter")
CONFIG = LearningConfig(
    steps_per_round=2,
    tokens_per_batch=24,
    policy_learning_rate=1e-2,
    train_value=False,
    warmup_steps=0,
    threads=1,
    tracker="none",
    lora=LORA,
)
PROBE = torch.tensor([[63, 10, 97, 98, 99]])


@pytest.fixture(name="base")
def _base(tmp_path: Path) -> Iterator[Release]:
    threads = torch.get_num_threads()
    yield write_release(tmp_path / "weights")
    torch.set_num_threads(threads)


def started(base: Release, config: LearningConfig = CONFIG, adapter: Path | None = None) -> Learner:
    folders = base.policy_path, base.value_folder, base.policy_path
    return Learner.start(config, *folders, seed=3, base=base.id, adapter=adapter)


@torch.inference_mode()
def logits(policy: Path, adapter: Path | None = None) -> Tensor:
    found: Tensor = policy_in(policy, torch.float32, adapter)(PROBE).logits
    return found


@pytest.fixture(name="trained")
def _trained(base: Release, tmp_path: Path) -> tuple[Learner, Release]:
    """A learner after a round, and the release that it was published as."""
    learner = started(base)
    learner.round(TREES, seed=1)
    (tmp_path / "out").mkdir()
    learner.export(tmp_path / "out", base)
    assert base_of(tmp_path / "out" / ADAPTER) == base.id
    assert not (tmp_path / "out/policy").exists()
    adapter, value = tmp_path / "out" / ADAPTER, tmp_path / "out/value"
    return learner, publish(base.path.parent, adapter, value, Details(name="letters"), base=base)


def test_an_adapter_on_its_base_is_the_policy_that_was_trained(
    trained: tuple[Learner, Release], base: Release, tmp_path: Path
) -> None:
    learner, release = trained
    require_alike(base, release)
    assert release.stands_on_weights_of(base)
    with torch.inference_mode():
        own = learner.policy(PROBE).logits
    assert torch.allclose(logits(release.policy_path, release.adapter), own, atol=1e-5)
    assert not torch.allclose(logits(release.policy_path), own, atol=1e-3)


def test_a_learner_that_was_saved_writes_the_same_adapter(
    trained: tuple[Learner, Release], base: Release, tmp_path: Path
) -> None:
    learner, release = trained
    learner.save(tmp_path / "saved")
    resumed = Learner.resume(CONFIG, tmp_path / "saved", base.policy_path)
    (tmp_path / "again").mkdir()
    resumed.export(tmp_path / "again", release)
    assert release.adapter is not None
    one, other = (load_file(folder / WEIGHTS) for folder in (release.adapter, tmp_path / "again" / ADAPTER))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_training_goes_on_from_an_adapter_whose_learner_is_gone(
    trained: tuple[Learner, Release], base: Release
) -> None:
    learner, release = trained
    again = started(base, adapter=release.adapter)
    with torch.inference_mode():
        assert torch.allclose(again.policy(PROBE).logits, learner.policy(PROBE).logits, atol=1e-6)


@pytest.mark.parametrize(
    ("lora", "complaint"),
    [
        (LORA.model_copy(update={"publish": "merged"}), 'with learning.lora.publish "adapter"'),
        (None, 'with learning.lora.publish "adapter"'),
        (LORA.model_copy(update={"rank": 2}), "rank 4 and alpha 8.0 .*makes others: rank 2, alpha 8"),
        (LORA.model_copy(update={"alpha": 16}), "makes others: rank 4, alpha 16"),
    ],
)
def test_a_configuration_that_would_train_other_adapters_than_those_served_is_refused(
    trained: tuple[Learner, Release], base: Release, lora: LoraConfig | None, complaint: str
) -> None:
    _, release = trained
    with pytest.raises(ValueError, match=complaint):
        started(base, CONFIG.model_copy(update={"lora": lora}), release.adapter)


def test_a_learner_that_does_not_know_its_base_writes_no_adapter(base: Release, tmp_path: Path) -> None:
    learner = Learner.start(CONFIG, base.policy_path, base.value_folder, base.policy_path, seed=3)
    with pytest.raises(ValueError, match="does not say which release"):
        learner.export(tmp_path, base)


def test_a_policy_that_is_not_trained_stays_the_adapter_that_it_was(
    trained: tuple[Learner, Release], base: Release, tmp_path: Path
) -> None:
    _, release = trained
    config = CONFIG.model_copy(update={"train_policy": False, "train_value": True, "lora": None})
    learner = started(base, config, release.adapter)
    (tmp_path / "value-only").mkdir()
    learner.export(tmp_path / "value-only", release)
    assert release.adapter is not None
    assert (tmp_path / "value-only" / ADAPTER / WEIGHTS).samefile(release.adapter / WEIGHTS)
