"""The policy's adapters on disk, under PEFT's names: written as a release holds them, and read to train on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ramify.weights import adapter_rank
from ramify.weights.adapter import CONFIG, WEIGHTS
from ramify_trainer.learning.config import LoraConfig

__all__ = ["base_of", "merge_adapter", "read_adapter", "write_adapter"]

BASE = "base_model_name_or_path"
"""Key of the configuration under which PEFT names the base; here it is a release's id."""
PEFT = "base_model.model."
"""Beginning of PEFT's names."""


def write_adapter(folder: Path, weights: Mapping[str, Tensor], lora: LoraConfig, base: str) -> None:
    """Write a policy's adapters, in float32, as `folder`. weights: of the network, whole; others are passed over. base:
    id of the release that they stand on. Raises `ValueError` if a number is not finite."""
    matrices = {_peft_name(name): w.float().contiguous() for name, w in weights.items() if ".lora_" in name}
    for name, matrix in matrices.items():
        if not torch.isfinite(matrix).all():
            raise ValueError(f"{name} holds numbers that are not finite: it is not exported")
    layers = {name.removeprefix(PEFT).rpartition(".lora_")[0] for name in matrices}
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
        BASE: base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "target_modules": sorted(layers),
        "bias": "none",
    }
    folder.mkdir()
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file(matrices, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)


def read_adapter(folder: Path, weights: Mapping[str, Tensor], lora: LoraConfig) -> dict[str, Tensor]:
    """Return the adapters in a directory by the names of `weights`, which are the network's.

    Raises `ValueError` if the configuration would make others."""
    stored = load_file(folder / WEIGHTS)
    names = {_peft_name(name): name for name in weights if ".lora_" in name}
    made = {name: tuple(weights[own].shape) for name, own in names.items()}
    if made != {name: tuple(matrix.shape) for name, matrix in stored.items()} or _alpha(folder) != lora.alpha:
        raise ValueError(
            f"{folder} has adapters of rank {adapter_rank(folder)} and alpha {_alpha(folder)} on {len(stored) // 2} "
            f"layers, and learning.lora makes others: rank {lora.rank}, alpha {lora.alpha}, {len(names) // 2} layers"
        )
    return {names[name]: matrix for name, matrix in stored.items()}


def merge_adapter(model: Any, folder: Path) -> Any:
    """Return the Hugging Face model with the adapter in a directory added to its weights."""
    import peft

    return peft.PeftModel.from_pretrained(model, str(folder)).merge_and_unload()


def base_of(folder: Path) -> str:
    """Return the id of the release that the adapters in a directory, which `write_adapter` has written, stand on."""
    return str(_config(folder)[BASE])


def _alpha(folder: Path) -> float:
    return float(_config(folder)["lora_alpha"])


def _config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return config


def _peft_name(name: str) -> str:
    """Return PEFT's name of a matrix, given the network's: `model.LAYER.lora_A.default.weight`."""
    return PEFT + name.removeprefix("model.").replace(".default.", ".")
