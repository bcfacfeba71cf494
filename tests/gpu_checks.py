"""Models, trees and the table of `make gpu-check`, which runs on a GPU or, as a rehearsal, on a CPU."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)

from models import WORDS, write_tokenizer
from ramify.search.tree import Completion, Tree
from ramify.weights import Action, Details, Release, publish
from ramify_trainer.loop.release import compare_with_parent
from search_worlds import new_tree

DEVICE = "RAMIFY_GPU_CHECK_DEVICE"
MODEL = "RAMIFY_GPU_CHECK_MODEL"
SHAPES: dict[str, dict[str, int]] = {
    # Qwen2.5-0.5B's
    "cuda": {
        "vocab_size": 151_936,
        "hidden_size": 896,
        "intermediate_size": 4_864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4_096,
    },
    "cpu": {
        "vocab_size": len(WORDS),
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1_024,
    },
}
JUDGE_LAYERS = 6
"""Layers of the random value model, at most."""
CHANGE = 0.3
"""Noise on the next release's weights, in units of their own spread."""


@dataclass(frozen=True, slots=True)
class CheckTable:
    """The one table that is printed at the end."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)
    """Check, figure and its value with the unit."""

    def add(self, check: str, **figures: str) -> None:
        self.rows.extend((check, name.replace("_", " "), value) for name, value in figures.items())


def mebibytes(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


def policy_of(folder: Path, device: str) -> Path:
    """Return the model of `MODEL=`, or write a random one with the device's shape and a word for every token."""
    if given := os.environ.get(MODEL):
        return Path(given)
    torch.manual_seed(0)
    shape = SHAPES[device]
    config = LlamaConfig(**shape, initializer_range=0.05, tie_word_embeddings=True, **_ends())
    LlamaForCausalLM(config).bfloat16().save_pretrained(folder)
    rest = range(len(WORDS), shape["vocab_size"])
    write_tokenizer(folder, (*WORDS, *(f" word{i}" for i in rest)))
    return folder


def value_of(folder: Path, policy: Path) -> Path:
    """Write a random value model of the policy's width over its tokenizer."""
    torch.manual_seed(1)
    config = AutoConfig.from_pretrained(policy).get_text_config()
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    shape = {name: getattr(config, name) for name in (*names, "max_position_embeddings")}
    layers = min(JUDGE_LAYERS, config.num_hidden_layers)
    tokenizer = AutoTokenizer.from_pretrained(policy)
    ends = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
    }
    judge = LlamaConfig(**shape, num_hidden_layers=layers, num_labels=1, **ends)
    LlamaForSequenceClassification(judge).bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _ends() -> dict[str, Any]:
    return {f"{name}_token_id": WORDS.index(f"<{name}>") for name in ("pad", "bos", "eos")}


def base_release(root: Path, device: str) -> Release:
    """Publish the policy and its value model as the first release below `root`."""
    policy = policy_of(root / "policy", device)
    details = Details(name="gpu-check", default_action=Action(max_tokens=16), default_max_tokens=64)
    return publish(root / "weights", policy, value_of(root / "value", policy), details)


def changed_policy(base: Release, folder: Path) -> Path:
    """Write the base's policy with noise on its weights, and its other files as they are."""
    model: Any = AutoModelForCausalLM.from_pretrained(base.policy_path, dtype=torch.bfloat16)
    noise = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in model.parameters():
            spread = weight.float().std(unbiased=False) * CHANGE
            weight += (torch.randn(weight.shape, generator=noise) * spread).to(weight.dtype)
    return written_like(base.policy_path, folder, model.save_pretrained)


def written_like(like: Path, folder: Path, save: Callable[[Path], object]) -> Path:
    """Save a model, and put every other file beside it that `like` has."""
    save(folder)
    for file in like.iterdir():
        if ".safetensors" not in file.name:  # nor the index of several
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


def next_release(base: Release, folder: Path) -> Release:
    """Publish the base with a changed policy, and with the canary that a round of training would choose."""
    policy, value = changed_policy(base, folder / "policy"), base.path / "value"
    canary = compare_with_parent(policy, value, base, answer_trees(8)).canary
    details = Details(
        **{
            **{name: getattr(base.manifest, name) for name in Details.model_fields},
            "parent": base.id,
            "canary": canary,
        }
    )
    return publish(base.path.parent, policy, value, details)


def answer_trees(count: int) -> list[Tree]:
    """Return trees with two answers of 24 random tokens each."""
    draws = random.Random(0)
    return [_answered(seed, [_drawn(draws, 24) for _ in range(2)]) for seed in range(count)]


def _answered(seed: int, answers: Sequence[tuple[int, ...]]) -> Tree:
    tree = new_tree(seed=seed)
    tree.prompt_tokens = answers[0][:16]
    for i, answer in enumerate(answers):
        node = tree.add(tree.root, tokens=answer, logprobs=(-1.0,) * len(answer), terminal="eos")
        tree.completions.append(Completion(node.id, i + 1, i + 1))
    return tree


def _drawn(draws: random.Random, count: int) -> tuple[int, ...]:
    return tuple(draws.randrange(10, 100) for _ in range(count))
