"""Exported weights have the tensors of the model that training began with: the server takes nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from architectures import OTHER, PLAIN, Architecture
from fakes_training import TREES
from ramify.weights import require_alike
from ramify.weights.tensors import tensors_of
from ramify_trainer.learning.config import LearningConfig, LoraConfig
from ramify_trainer.learning.learner import Learner

FULL = LearningConfig(
    steps_per_round=1,
    tokens_per_batch=64,
    policy_learning_rate=1e-2,
    value_learning_rate=1e-2,
    kl_beta=0,
    warmup_steps=0,
    threads=1,
    tracker="none",
)
LORA = FULL.model_copy(update={"lora": LoraConfig(rank=2, alpha=4)})
ARCHITECTURES = {**PLAIN, **{name: OTHER[name] for name in ("gemma2", "gemma3", "jamba", "qwen3_next")}}
PROBE = torch.tensor([[63, 10, 97, 10, 98]])


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def written(folder: Path, architecture: Architecture, dtype: str = "float32") -> Path:
    """A base of that architecture."""
    architecture.write(folder / "policy", dtype=dtype)
    architecture.write(folder / "value", value=True, dtype=dtype)
    return folder


def trained(base: Path, config: LearningConfig) -> Learner:
    """After one optimizer step."""
    learner = Learner.start(config, base / "policy", base / "value", base / "policy", seed=3)
    assert learner.round(TREES[:4], seed=1).steps == 1
    return learner


@torch.inference_mode()
def logits(folder: Path) -> Tensor:
    found: Tensor = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(PROBE).logits
    return found


@pytest.mark.parametrize("config", [FULL, LORA], ids=["all weights", "adapters"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_trained_model_of_any_architecture_can_take_the_place_of_its_base(
    tmp_path: Path, name: str, config: LearningConfig
) -> None:
    base, out = written(tmp_path / "base", ARCHITECTURES[name]), tmp_path / "out"
    out.mkdir()
    learner = trained(base, config)
    learner.export(out, base)
    require_alike(base, out)
    with torch.inference_mode():
        own = learner.policy(PROBE).logits
    assert torch.allclose(logits(out / "policy"), own, atol=1e-4)
    assert not torch.allclose(logits(base / "policy"), own, atol=1e-3)


@pytest.mark.parametrize("config", [FULL, LORA], ids=["all weights", "adapters"])
@pytest.mark.parametrize("name", ["qwen2 tied", "mixtral"])
def test_a_learner_that_was_saved_exports_the_same(tmp_path: Path, name: str, config: LearningConfig) -> None:
    base = written(tmp_path / "base", PLAIN[name], "bfloat16")
    learner = trained(base, config)
    learner.save(tmp_path / "saved")
    resumed = Learner.resume(config, tmp_path / "saved", base / "policy")
    for each, folder in ((learner, tmp_path / "one"), (resumed, tmp_path / "other")):
        folder.mkdir()
        each.export(folder, base)
        require_alike(base, folder)
    for part in ("policy", "value"):
        one, other = (load_file(tmp_path / run / part / "model.safetensors") for run in ("one", "other"))
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_every_tensor_keeps_its_type_and_old_buffers_stay(tmp_path: Path) -> None:
    base, out = written(tmp_path / "base", PLAIN["llama"], "bfloat16"), tmp_path / "out"
    out.mkdir()
    file = base / "policy" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"] = tensors["model.norm.weight"].float()
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(tensors, file, metadata={"format": "pt"})
    trained(base, FULL).export(out, base)
    require_alike(base, out)


def test_a_base_in_several_files_or_of_the_trunk_alone_is_written_back_under_its_own_names(
    tmp_path: Path,
) -> None:
    base, out = written(tmp_path / "base", PLAIN["gpt2 tied"]), tmp_path / "out"
    out.mkdir()
    file = base / "policy" / "model.safetensors"
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(file).items()}
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for part, own in parts.items():
        save_file({name: tensors[name] for name in own}, base / "policy" / part, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: part for part, own in parts.items() for name in own}}
    (base / "policy" / "model.safetensors.index.json").write_text(json.dumps(index))
    file.unlink()
    trained(base, FULL).export(out, base)
    require_alike(base, out)
    assert "h.0.attn.c_attn.weight" in tensors_of(out / "policy")


def test_a_trained_weight_that_has_no_place_is_named_and_not_lost(tmp_path: Path) -> None:
    base, out = written(tmp_path / "base", PLAIN["llama"]), tmp_path / "out"
    out.mkdir()
    learner = trained(base, FULL)
    file = base / "policy" / "model.safetensors"
    tensors = load_file(file)
    del tensors["lm_head.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"policy has no place for 1 trained tensors: lm_head\.weight"):
        learner.export(out, base)
    assert not (out / "policy").exists()
