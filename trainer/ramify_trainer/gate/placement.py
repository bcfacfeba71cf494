"""Where weights that are not served are computed, and how precisely: on the trainer's own device, as they are served.

On a GPU that is the precision of the files. On a CPU it is float32: few multiply anything else as fast, and the server
widens bfloat16 there as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import AutoConfig, AutoModelForCausalLM

from ramify_trainer.learning.networks import Network, load_judge


def device() -> torch.device:
    """Return the device that the learner trains on."""
    found: torch.device = PartialState().device
    return found


def policy_in(folder: Path) -> Any:
    """Return the causal language model in a Hugging Face directory, only to be read."""
    where = device()
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=_precision(folder, where), local_files_only=True, use_safetensors=True
    )
    return model.to(where).eval()


def judge_in(folder: Path) -> Network:
    """Return what judges for the release or candidate in a folder, only to be read. A head computes in float32."""
    where = device()
    judge = load_judge(folder / "policy", folder / "value").to(where)
    judge.model.to(_precision(folder / "policy", where))
    return judge


def _precision(folder: Path, where: torch.device) -> torch.dtype:
    if where.type == "cpu":
        return torch.float32
    return AutoConfig.from_pretrained(folder, local_files_only=True).dtype or torch.float32
