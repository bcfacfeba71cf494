"""Releases for tests of adapters: a tiny random policy with a value head, and random LoRA adapters on it.

They are published with the figures that transformers gives to the weights with the adapter merged in. Import `written`
into a conftest to use them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from models import write_tiny_models
from ramify.weights import HEAD, Action, Details, Probe, Release, publish
from ramify_trainer.gate.value_scores import end_values
from ramify_trainer.learning.networks import load_judge
from ramify_trainer.learning.value_head import write_head

HIDDEN, RANK, ALPHA = 64, 4, 8
LAYERS = [
    f"model.layers.{i}.{name}"
    for i in range(2)
    for name in ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")
]
TEXTS = (((1, 5, 6, 7), (8, 9, 10)), ((1, 20, 30), (40, 50)))


@dataclass(frozen=True)
class Written:
    """Releases of one folder, and the whole weights of each."""

    releases: dict[str, Release]
    merged: dict[str, Path]
    """A `policy` and a `value` with whole weights, by release."""


def random_adapter(folder: Path, policy: Path, seed: int) -> Path:
    folder.mkdir(parents=True)
    drawn = torch.Generator().manual_seed(seed)
    weights = load_file(policy / "model.safetensors")
    matrices = {}
    for layer in LAYERS:
        out, into = weights[f"{layer}.weight"].shape
        matrices[f"base_model.model.{layer}.lora_A.weight"] = torch.randn(RANK, into, generator=drawn) / 8
        matrices[f"base_model.model.{layer}.lora_B.weight"] = torch.randn(out, RANK, generator=drawn) / 8
    save_file(matrices, folder / "adapter_model.safetensors")
    targets = sorted({layer.rpartition(".")[2] for layer in LAYERS})
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "target_modules": targets}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def merge(parts: Path, adapter: Path, folder: Path) -> Path:
    """Write the models of `parts` with the adapter added to the policy, in float32."""
    shutil.copytree(parts, folder)
    weights = {name: w.float() for name, w in load_file(parts / "policy/model.safetensors").items()}
    matrices = load_file(adapter / "adapter_model.safetensors")
    for layer in LAYERS:
        a, b = (matrices[f"base_model.model.{layer}.lora_{which}.weight"] for which in "AB")
        weights[f"{layer}.weight"] += ALPHA / RANK * b @ a
    save_file(weights, folder / "policy/model.safetensors", {"format": "pt"})
    return folder


@torch.inference_mode()
def logprobs_of(policy: Any, texts: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
    """The log-probabilities of each text (prompt, continuation), all in one pass, padded at the end."""
    longest = max(len(prompt) + len(text) for prompt, text in texts)
    rows = [[*prompt, *text, *[0] * (longest - len(prompt) - len(text))] for prompt, text in texts]
    logprobs = policy(torch.tensor(rows)).logits.log_softmax(-1)
    return [
        row[len(prompt) - 1 :][: len(text)].gather(1, torch.tensor(text)[:, None])[:, 0].tolist()
        for row, (prompt, text) in zip(logprobs, texts, strict=True)
    ]


def details(parts: Path) -> Details:
    """Describe a release whose whole weights are in `parts`."""
    policy = AutoModelForCausalLM.from_pretrained(parts / "policy", dtype=torch.float32)
    judge = load_judge(parts / "policy", parts / "value")
    probes = tuple(
        Probe(
            prompt=prompt,
            continuation=text,
            logprobs=tuple(logprobs_of(policy, [(prompt, text)])[0]),
            value=end_values(judge, [[*prompt, *text]])[0],
        )
        for prompt, text in TEXTS
    )
    action = Action(stop=("\n",), max_tokens=8)
    return Details(name="tiny", canary=probes, default_action=action, default_max_tokens=32)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """v000001 and v000004: whole weights; v000002 and v000003: adapters on the first of them."""
    folder = tmp_path_factory.mktemp("adapters")
    releases, merged = {}, {}
    for release_id, seed in (("v000001", 1), ("v000004", 4)):
        parts = folder / f"made-{release_id}"
        write_tiny_models(parts, hidden=HIDDEN, layers=2, heads=2, seed=seed)
        shutil.rmtree(parts / "value")
        weight = torch.randn(1, HIDDEN, generator=torch.Generator().manual_seed(1)) / 8
        write_head(parts / "value", {"weight": weight, "bias": torch.zeros(1)})
        merged[release_id] = parts
        models = parts / "policy", parts / "value" / HEAD
        releases[release_id] = publish(folder / "weights", *models, details(parts), release_id=release_id)
    base = releases["v000001"]
    for release_id, seed in (("v000002", 2), ("v000003", 3)):
        adapter = random_adapter(folder / f"adapter-{release_id}", base.policy_path, seed)
        parts = merge(merged[base.id], adapter, folder / f"made-{release_id}")
        merged[release_id] = parts
        releases[release_id] = publish(
            folder / "weights", adapter, None, details(parts), base=base, release_id=release_id
        )
    return Written(releases, merged)
