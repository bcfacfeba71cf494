"""Seeded draws on a CPU, for little more than draws without seeds.

vLLM asks the generator of each request for one number a token: 10 µs each on a slow core of an AMD EPYC, with a hundred
rows (2026-12-01). Here a generator is asked for many at once. They are the numbers that it would have given one by one,
so that every draw stays what it is in vLLM, as long as nothing else asks that generator; drafted tokens would, which
Ramify's engines do not have. (On GPUs vLLM's second model runner draws by seed and position, all rows at once.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler, apply_top_k_top_p

AHEAD = 32
"""Numbers that a generator is asked for at once. Those that its request does not use are lost with it."""
RANGE = 2**31
"""vLLM's seeds of a row are from 0 up to this, exclusive."""
_seeds: WeakKeyDictionary[torch.Generator, Iterator[int]] = WeakKeyDictionary()
"""The numbers that each generator has left."""
_forward = TopKTopPSampler.forward_cpu


def forward_cpu(
    sampler: Any,
    logits: torch.Tensor,
    generators: Mapping[int, torch.Generator],
    k: torch.Tensor | None,
    p: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Sample as `TopKTopPSampler.forward_cpu` does, which is called if no row has a seed or the modes are not those of
    Ramify's engines.

    logits: (rows, vocabulary). generators: of the rows with seeds. Returns tokens, (rows), and log-probabilities, as
    large as logits."""
    ours = sampler.logprobs_mode == "processed_logprobs" and not sampler.use_fp64_gumbel
    if not ours or not generators:
        drawn: tuple[torch.Tensor, torch.Tensor | None] = _forward(sampler, logits, generators, k, p)
        return drawn
    logits = apply_top_k_top_p(logits, k, p)
    logprobs = logits.log_softmax(dim=-1, dtype=torch.float32)
    seeds = torch.randint(0, RANGE, (len(logits),), dtype=torch.long)
    seeds[list(generators)] = torch.tensor([next_seed(generator) for generator in generators.values()])
    return torch.ops._C.fused_gumbel_argmax(logits.float(), seeds), logprobs


def next_seed(generator: torch.Generator) -> int:
    """Return what `torch.randint` would draw next from a generator that is used here only."""
    seed = next(_seeds.get(generator, iter(())), None)
    if seed is None:
        _seeds[generator] = iter(torch.randint(0, RANGE, (AHEAD,), generator=generator).tolist())
        seed = next(_seeds[generator])
    return seed
