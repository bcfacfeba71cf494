"""Policy and value model of any Hugging Face directory: loaded, read at chosen places, exported.

Both are wrapped in a module whose one forward pass takes packed rows, so that data parallelism and sharding see every
call. Dropout is off. Weights are held in float32, whatever the directory holds; exports go back to its type.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from ramify_trainer.learning.config import LearningConfig, LoraConfig

__all__ = [
    "Network",
    "PolicyNetwork",
    "ValueNetwork",
    "export",
    "load_policy",
    "load_value",
    "merged_weights",
]

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.pt", "*.pth")
"""Files of a model directory that hold weights, and are not copied."""


class Network(nn.Module):
    """A Hugging Face model, read at chosen places of packed rows."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def _mask(self, mask: Tensor) -> Tensor:
        """What is added to the attention scores, [R, 1, L, L]: 0, or the least number where nothing is to be seen."""
        kind = (
            torch.get_autocast_dtype(mask.device.type)
            if torch.is_autocast_enabled(mask.device.type)
            else None
        )
        kind = kind or self.model.dtype
        added = torch.zeros(mask.shape, dtype=kind, device=mask.device)
        return added.masked_fill_(~mask, torch.finfo(kind).min)


N = TypeVar("N", bound=Network)


class PolicyNetwork(Network):
    """A causal language model."""

    def forward(self, tokens: Tensor, positions: Tensor, mask: Tensor, at: Tensor) -> Tensor:
        """Logits [k, V] that follow the places `at` [k] of the flattened rows [R, L]."""
        out = self.model(
            input_ids=tokens, position_ids=positions, attention_mask=self._mask(mask), use_cache=False
        )
        logits: Tensor = out.logits.flatten(0, 1)[at]
        return logits


class ValueNetwork(Network):
    """A one-label sequence classifier over a causal trunk (`model.score` on the trunk's hidden states).

    A classifier's head is linear in the hidden state of the last token, so that one pass gives the logit at the end of
    every step: the trunk is causal."""

    def forward(self, tokens: Tensor, positions: Tensor, mask: Tensor, at: Tensor) -> Tensor:
        """Calibration left out, the logit [k] of the sequence that ends at each place."""
        out = self.model.base_model(
            input_ids=tokens, position_ids=positions, attention_mask=self._mask(mask), use_cache=False
        )
        logits: Tensor = self.model.score(out.last_hidden_state.flatten(0, 1)[at])
        return logits[:, 0].float()


def load_policy(folder: Path, config: LearningConfig, *, trained: bool = True) -> PolicyNetwork:
    """The causal language model in `folder`, in float32 and without dropout; with adapters if so configured."""
    model = AutoModelForCausalLM.from_pretrained(folder, **_options(config))
    return _finish(PolicyNetwork(model), config.lora if trained else None, trained)


def load_value(folder: Path, config: LearningConfig, *, trained: bool = True) -> ValueNetwork:
    """The classifier in `folder`. Raises `ValueError` where it has more labels than one, or no head on a trunk."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, **_options(config))
    if model.config.num_labels != 1:
        raise ValueError(f"{folder}: a value model has 1 label, not {model.config.num_labels}")
    if not isinstance(getattr(model, "score", None), nn.Module):
        raise ValueError(
            f"{folder}: {type(model).__name__} has no `score` head on a causal trunk, so it cannot be read"
        )
    return _finish(ValueNetwork(model), config.lora if trained else None, trained)


def _options(config: LearningConfig) -> dict[str, Any]:
    return {
        "dtype": torch.float32,
        "attn_implementation": config.attention,
        "local_files_only": True,
        "use_safetensors": True,
    }


def _finish(network: N, lora: LoraConfig | None, trained: bool) -> N:
    network.eval()
    if not trained:
        network.requires_grad_(False)
    elif lora is not None:
        _add_adapters(network, lora)
    return network


def _add_adapters(network: Network, lora: LoraConfig) -> None:
    """Put adapters into the model; all else but a value model's head is frozen."""
    import peft

    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    adapters = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules=targets, exclude_modules=["score", "lm_head"]
    )
    peft.inject_adapter_in_model(adapters, network.model)
    if isinstance(network, ValueNetwork):
        network.model.score.requires_grad_(True)


def merged_weights(network: Network, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's own weights by its own names, adapters added in: W + (alpha / rank)·B·A. `weights` are the network's,
    whole and on the CPU. The network is left as it is."""
    return _model_weights(network, weights, merge=True)


def base_weights(network: Network, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same without what the adapters learned."""
    return _model_weights(network, weights, merge=False)


def _model_weights(network: Network, weights: Mapping[str, Tensor], merge: bool) -> dict[str, Tensor]:
    scale = {
        name: module.scaling["default"]
        for name, module in network.named_modules()
        if hasattr(module, "lora_A") and hasattr(module, "scaling")
    }
    found = {}
    for name, weight in weights.items():
        if ".lora_" in name:
            continue
        owner, base, part = name.partition(".base_layer.")
        if base and merge and part == "weight":
            up, down = (weights[f"{owner}.lora_{x}.default.weight"] for x in "BA")
            weight = weight + scale[owner] * (up @ down)
        found[(f"{owner}.{part}" if base else name).removeprefix("model.")] = weight
    return found


def export(
    network: Network, weights: Mapping[str, Tensor], source: Path, folder: Path, dtype: torch.dtype
) -> None:
    """Write `weights` (the model's, by its own names) as `folder`: a Hugging Face directory with one
    `model.safetensors` of `dtype`, and every other file as `source` has it. `folder` appears whole or not at all.

    Raises `FileExistsError` where it is there, and `ValueError` where a weight is not finite."""
    if folder.exists():
        raise FileExistsError(f"{folder} is there already")
    draft = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(draft, ignore_errors=True)
    cast = {name: weight.detach().to("cpu", dtype).contiguous() for name, weight in weights.items()}
    for name, weight in cast.items():
        if not torch.isfinite(weight).all():
            raise ValueError(f"{name} holds numbers that are not finite: these weights are not exported")
    network.model.save_pretrained(draft, state_dict=cast, max_shard_size="1000TB")
    shutil.copytree(source, draft, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*WEIGHTS))
    for path in draft.iterdir():
        path.chmod(0o644)
    flush(draft)
    draft.rename(folder)


def stored_dtype(folder: Path) -> torch.dtype:
    """The type of the weights in a model directory: that of its configuration, else that of its first tensor."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    name = config.get("dtype") or config.get("torch_dtype")
    if isinstance(name, str):
        return _dtype(name.removeprefix("torch."))
    with safe_open(next(folder.glob("*.safetensors")), "pt") as tensors:
        kind: torch.dtype = tensors.get_tensor(next(iter(tensors.keys()))).dtype
    return kind


def _dtype(name: str) -> torch.dtype:
    kind = getattr(torch, name, None)
    if not isinstance(kind, torch.dtype):
        raise ValueError(f"{name!r} is no type of numbers that torch knows")
    return kind


def flush(folder: Path) -> None:
    """See to it that every file below `folder`, and `folder` itself, is on the disk."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
