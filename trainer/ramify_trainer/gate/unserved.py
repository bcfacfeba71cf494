"""Weights that are not served: the answers that are asked of them, and their device and precision in the trainer.

The device is the trainer's own, and the precision the server's. On a GPU that is the precision of the files. On a CPU
it is float32: few multiply anything else as fast, and the server widens bfloat16 there as well.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import AutoConfig, AutoModelForCausalLM

from ramify.weights import ModelFiles, Release, models_of
from ramify_trainer.learning.adapters import merge_adapter
from ramify_trainer.learning.networks import Network, load_judge


@dataclass(frozen=True, slots=True)
class AnswerJob:
    """The greedy answer to each prompt, and one at temperature 1 for each of its seeds."""

    policy: Path
    """Hugging Face directory."""
    prompts: Sequence[Sequence[int]]
    """Token ids."""
    seeds: Sequence[Sequence[int]]
    """Equally many for each prompt."""
    max_tokens: int
    """Longest answer, in tokens."""
    ends: Set[int]
    """Tokens that end an answer, and are part of it."""
    adapter: Path | None = None
    """LoRA adapter on the policy to draw with."""


def answer_seed(seed: int, problem: str, i: int) -> int:
    """Return the seed of a problem's answer number `i`, in [0, 2^63), derived from that of the run."""
    digest = blake2b(f"{seed}:{problem}:{i}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


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
