"""Answers of weights that are not served: in batches of unequal prompts as one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from architectures import OTHER, PLAIN, VOCABULARY, Architecture
from ramify_trainer.errors import TrainerError
from ramify_trainer.gate.sampling import _pick, sample

KINDS = {name: {**PLAIN, **OTHER}[name] for name in ("llama", "gpt2 tied", "qwen3_moe", "gemma3", "llama4")}
"""Rotated and learned positions, experts, sliding windows, chunks."""
PROMPTS = [[5, 6, 7], [9], [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14], [20, 21, 22, 23, 24]]
SEEDS = [[10 * i + k for k in range(3)] for i in range(len(PROMPTS))]
ENDS = tuple(range(0, VOCABULARY, 8))
"""Tokens that end an answer: one in eight, so that answers end at different lengths."""


def loaded(architecture: Architecture, folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    path = architecture.write(folder, dtype="float32")
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


def drawn(
    model: Any, prompts: list[list[int]], seeds: list[list[int]], temperature: float
) -> list[list[list[int]]]:
    return sample(model, prompts, seeds, temperature=temperature, max_tokens=12, eos_ids=ENDS)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_batch_of_unequal_prompts_gives_what_each_prompt_gives_alone(
    name: str, temperature: float, tmp_path: Path
) -> None:
    model = loaded(KINDS[name], tmp_path)
    together = drawn(model, PROMPTS, SEEDS, temperature)
    alone = [
        [drawn(model, [prompt], [[seed]], temperature)[0][0] for seed in own]
        for prompt, own in zip(PROMPTS, SEEDS, strict=True)
    ]
    assert together == alone
    if temperature:
        assert len({tuple(answer) for group in together for answer in group}) > len(PROMPTS)


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    logits = torch.tensor([[0.0, 1.0, -torch.inf, 2.0, -1.0]])
    n = 20_000
    uniform = torch.rand(n, generator=torch.Generator().manual_seed(0))
    for temperature in (0.5, 1.0, 2.0):
        found = torch.bincount(_pick(logits.expand(n, -1), temperature, uniform), minlength=5) / n
        expected = torch.softmax(logits[0] / temperature, dim=-1)
        assert torch.allclose(found, expected, atol=4 * (0.25 / n) ** 0.5)
        assert found[2] == 0


@pytest.mark.parametrize("name", ["mamba", "jamba"])
def test_a_model_whose_state_cannot_be_copied_by_rows_is_refused_by_what_to_do(
    name: str, tmp_path: Path
) -> None:
    model = loaded(OTHER[name], tmp_path)
    with pytest.raises(TrainerError, match=r'set sampler.engine to "vllm"'):
        drawn(model, PROMPTS, SEEDS, 1.0)
