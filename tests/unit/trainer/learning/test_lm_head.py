"""The chosen tokens' log-probabilities are those of all logits, and so are their gradients, however many are made at
once and whatever the model does with what its `lm_head` gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from architectures import OTHER, PLAIN, UNTIED, VOCABULARY, Architecture
from ramify_trainer.learning import lm_head

ARCHITECTURES = {
    name: {**PLAIN, **OTHER}[name]
    for name in ("llama tied", "gpt2 tied", "gpt_neox", "mixtral", "llama4", "jamba", "mamba")
}
ARCHITECTURES |= {
    "gemma2, capped": Architecture("gemma2", {"final_logit_softcapping": 2.0}),
    "cohere2, scaled": Architecture("cohere2", {"logit_scale": 0.3}),
    "granite, scaled": Architecture("granite", {**UNTIED, "logits_scaling": 3.0}),
    "opt": Architecture("opt", {"ffn_dim": 32, "word_embed_proj_dim": 16, "do_layer_norm_before": True}),
}
TOKENS = torch.arange(40, 64).reshape(2, 12)
AT = torch.tensor([0, 3, 4, 10, 13, 22, 3])
LABELS = torch.tensor([7, 9, 120, 0, 1, 5, 8])
TEMPERATURE = torch.tensor([1.0, 0.7, 1.3, 1.0, 0.5, 1.0, 1.0])


def densely(model: Any) -> tuple[Tensor, Tensor]:
    """All logits, of which those at the places are taken."""
    logits = model(TOKENS, use_cache=False).logits.flatten(0, 1)[AT]
    logprobs = torch.log_softmax(logits / TEMPERATURE[:, None], -1)
    return logprobs.gather(1, LABELS[:, None])[:, 0], -(logprobs.exp() * logprobs).sum(-1)


def sparsely(model: Any) -> tuple[Tensor, Tensor]:
    states = lm_head.trunk_of(model)(TOKENS, use_cache=False).last_hidden_state.flatten(0, 1)
    return lm_head.scored(model, states[AT], LABELS, TEMPERATURE)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_log_probabilities_entropies_and_gradients_are_those_of_all_logits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = ARCHITECTURES[name].write(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    expected = with_gradients(model, densely)
    for at_once in (1, 3, 100):
        monkeypatch.setattr(lm_head, "LOGITS", at_once * VOCABULARY)
        torch.testing.assert_close(with_gradients(model, sparsely), expected, rtol=1e-5, atol=1e-5)


def with_gradients(model: Any, way: Callable[[Any], tuple[Tensor, Tensor]]) -> tuple[Any, ...]:
    model.zero_grad()
    logprobs, entropy = way(model)
    (logprobs.sum() + 0.5 * entropy.sum()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return logprobs.detach(), entropy.detach(), gradients


def test_no_more_logits_are_made_at_once_than_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm_head, "LOGITS", 3 * VOCABULARY)
    model = AutoModelForCausalLM.from_pretrained(PLAIN["llama"].write(tmp_path), dtype=torch.float32)
    sizes: list[int] = []
    model.lm_head.register_forward_hook(lambda _module, _inputs, out: sizes.append(out.numel()))
    logprobs, _ = sparsely(model)
    logprobs.sum().backward()
    assert max(sizes) == 3 * VOCABULARY
    assert sum(sizes) == 2 * len(AT) * VOCABULARY  # forwards, and once more for the gradient
