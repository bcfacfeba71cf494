"""Layers that are computed again in the backward pass give the same loss and gradients, and keep less for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from architectures import OTHER, PLAIN, Architecture
from fakes_training import TREES, with_value_head, write_release
from ramify.weights import HEAD
from ramify_trainer.learning.batches import collate
from ramify_trainer.learning.config import LearningConfig, LoraConfig
from ramify_trainer.learning.networks import Network, Reader, load_policy, load_trunk
from ramify_trainer.learning.packing import pack
from ramify_trainer.learning.targets import policy_targets, value_targets

CONFIG = LearningConfig(kl_beta=0, threads=1, tracker="none", value_gradient="trunk")
LORA = CONFIG.model_copy(update={"lora": LoraConfig(rank=4)})
DROPPING = Architecture("opt", {"ffn_dim": 32, "word_embed_proj_dim": 16, "dropout": 0.5})


def gradients(network: Network, config: LearningConfig) -> tuple[dict[str, Tensor], int]:
    """The gradients of what one packed tree is read for, and the bytes kept for the backward pass."""
    labelled = TREES[0]
    lessons = {
        "policy": policy_targets(labelled, config),
        "value": value_targets(labelled.tree, labelled.outcomes, 1),
    }
    batch = collate(pack(labelled.tree, 2048, **{name: lessons[name] for name in network.outputs}))
    kept = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = Reader(network, config, Accelerator()).read(batch)
    sum(output.sum() for output in outputs.values()).backward()  # type: ignore[union-attr]
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}, kept


def compared(load: Callable[[LearningConfig], Network], config: LearningConfig) -> None:
    again, found = config.model_copy(update={"gradient_checkpointing": True}), []
    for each in (config, again):
        torch.manual_seed(0)  # of fresh adapters
        found.append(gradients(load(each), each))
    (plain, kept), (same, less) = found
    assert plain
    torch.testing.assert_close(same, plain, rtol=1e-5, atol=1e-6)
    assert less < 0.7 * kept


@pytest.mark.parametrize("name", ["llama tied", "gpt2 tied", "qwen3_moe"])
def test_a_policy_has_the_same_gradients(tmp_path: Path, name: str) -> None:
    folder = PLAIN[name].write(tmp_path)
    compared(lambda config: load_policy(folder, config), CONFIG)


def test_dropout_stays_off_in_layers_that_drop_by_themselves(tmp_path: Path) -> None:
    folder = DROPPING.write(tmp_path)
    compared(lambda config: load_policy(folder, config), CONFIG)


@pytest.mark.parametrize("config", [CONFIG, LORA], ids=["all weights", "adapters"])
def test_a_trunk_with_a_value_head_has_the_same_gradients(tmp_path: Path, config: LearningConfig) -> None:
    base = with_value_head(write_release(tmp_path).policy_path, tmp_path / "trunk")
    compared(lambda config: load_trunk(base / "policy", base / "value" / HEAD, config), config)


def test_a_model_that_cannot_is_refused_by_the_setting_s_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = OTHER["jamba"].write(tmp_path)
    monkeypatch.setattr("ramify_trainer.learning.networks.GradientCheckpointingLayer", type("None", (), {}))
    with pytest.raises(ValueError, match=r"set learning\.gradient_checkpointing to false"):
        load_policy(folder, CONFIG.model_copy(update={"gradient_checkpointing": True}))
