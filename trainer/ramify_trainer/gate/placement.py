"""Device and precision of weights that are not served: the trainer's own device, and the server's precision.

On a GPU that is the precision of the files. On a CPU it is float32: few multiply anything else as fast, and the server
widens bfloat16 there as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import AutoConfig, AutoModelForCausalLM

from ramify.weights import ModelFiles, Release, models_of
from ramify_trainer.learning.adapters import merge_adapter
from ramify_trainer.learning.networks import Network, load_judge


def device() -> torch.device:
    """Return the device that the learner trains on."""
    found: torch.device = PartialState().device
    return found


def policy_in(folder: Path, dtype: torch.dtype | None = None, adapter: Path | None = None) -> Any:
    """Return the causal language model in a Hugging Face directory, only to be read. dtype: None: the server's.
    adapter: the one on it whose sums are added to its weights, in their precision."""
    place = device()
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype or _precision(folder, place), local_files_only=True, use_safetensors=True
    )
    if adapter is not None:
        model = merge_adapter(model, adapter)
    return model.to(place).eval()


def judge_in(source: Path | Release | ModelFiles) -> Network:
    """Return what judges for a release or candidate, only to be read. A head computes in float32."""
    place, models = device(), models_of(source)
    judge = load_judge(models.policy, models.value, models.adapter).to(place)
    judge.model.to(_precision(models.policy, place))
    return judge


def _precision(folder: Path, place: torch.device) -> torch.dtype:
    if place.type == "cpu":
        return torch.float32
    return AutoConfig.from_pretrained(folder, local_files_only=True).dtype or torch.float32
