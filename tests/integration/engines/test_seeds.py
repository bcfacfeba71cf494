"""Seeded draws on a CPU are vLLM's own, whatever is drawn beside them."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import Any

import pytest

ROWS, VOCABULARY, STEPS = 6, 50, 70
MIXED = [None, 1, None, 2, 3, 2**62]


def generators(seeds: list[int | None]) -> dict[int, Any]:
    import torch

    given = {row: torch.Generator() for row, seed in enumerate(seeds) if seed is not None}
    for row, generator in given.items():
        generator.manual_seed(seeds[row])
    return given


SAMPLERS = {
    "ours": {"use_fp64_gumbel": False, "logprobs_mode": "processed_logprobs"},
    "other log-probabilities": {"use_fp64_gumbel": False, "logprobs_mode": "raw_logprobs"},
    "other noise": {"use_fp64_gumbel": True, "logprobs_mode": "processed_logprobs"},
}


@pytest.mark.parametrize("seeds", [[5] * ROWS, MIXED, [None] * ROWS], ids=["all", "some", "none"])
@pytest.mark.parametrize("set_up", SAMPLERS.values(), ids=SAMPLERS)
@pytest.mark.parametrize("nucleus", [None, 0.8])
def test_draws_by_seeds_are_those_of_vllm(
    seeds: list[int | None], set_up: dict[str, Any], nucleus: float | None
) -> None:
    import torch
    from vllm.platforms import current_platform

    from ramify.engines.vllm.seeds import _forward, forward_cpu

    current_platform.import_kernels()
    assert _forward is not forward_cpu
    sampler: Any = SimpleNamespace(**set_up)
    top_p = None if nucleus is None else torch.full((ROWS,), nucleus)
    steps = torch.randn(STEPS, ROWS, VOCABULARY, generator=torch.Generator().manual_seed(0))
    drawn = []
    for forward in (_forward, forward_cpu):
        torch.manual_seed(1)  # of the rows without a seed
        own = generators(seeds)
        drawn.append([forward(sampler, step.clone(), own, None, top_p) for step in steps])
    for (their_tokens, their_logprobs), (tokens, logprobs) in zip(*drawn, strict=True):
        assert torch.equal(their_tokens, tokens)
        if their_logprobs is None:
            assert logprobs is None
        else:
            assert torch.equal(their_logprobs, logprobs)


def test_the_engines_on_a_cpu_draw_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler
    from vllm.v1.worker import gpu_model_runner

    from ramify.engines.vllm import core_process, seeds

    for owner, name in (
        (TopKTopPSampler, "forward_cpu"),
        (gpu_model_runner, "copy_kv_cache_blocks_inplace"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    core_process._spare_the_cpu()
    assert TopKTopPSampler("processed_logprobs").forward.__func__ is seeds.forward_cpu


def test_a_generator_that_is_gone_keeps_no_seeds() -> None:
    from ramify.engines.vllm import seeds

    (generator,) = generators([7]).values()
    before = len(seeds._seeds)
    seeds.next_seed(generator)
    assert len(seeds._seeds) == before + 1
    del generator
    gc.collect()
    assert len(seeds._seeds) == before
