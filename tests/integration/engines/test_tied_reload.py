"""A reload of a policy whose output layer is its embedding: both are the new weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from fixtures_engines import SERVING, LiveEngines
from models import write_tiny_models
from ramify.engines import EngineConfig, EngineOptions, Text

TEXT = Text((5, 6, 7), tuple(range(10, 30)))


def expected(policy: Path) -> list[float]:
    """The log-probabilities of the text's continuation in plain transformers."""
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    with torch.no_grad():
        logprobs = model(torch.tensor([[*TEXT.prompt, *TEXT.continuation]])).logits[0].log_softmax(-1)
    start = len(TEXT.prompt) - 1
    return [logprobs[start + i, token].item() for i, token in enumerate(TEXT.continuation)]


@pytest.mark.slow
def test_tied_embeddings_are_reloaded_on_both_sides(tmp_path: Path) -> None:
    first, second = (write_tiny_models(tmp_path / str(seed), seed=seed).policy for seed in (1, 2))
    options = EngineOptions(dtype="float32", compile=False)
    live = LiveEngines(EngineConfig(first, serving=SERVING, options=options))

    async def reloaded(policy: Path) -> tuple[float, ...]:
        async with live.engines.exclusive(60.0):
            await live.engines.reload(policy, None)
            (measured,) = await live.engines.measure([TEXT], (1.0, 0.0))
        return measured.logprobs

    try:
        for policy in (second, first):
            assert live.run(reloaded(policy)) == pytest.approx(expected(policy), abs=1e-3)
    finally:
        live.close()
