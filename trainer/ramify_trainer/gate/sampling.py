"""Batched sampling from any Hugging Face causal language model, to measure weights that are not served."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["sample"]

ROWS = 256
"""Answers written at once."""


@torch.inference_mode()
def sample(
    model: Any,
    prompts: Sequence[Sequence[int]],
    n: int,
    *,
    temperature: float,
    max_tokens: int,
    eos_ids: Collection[int],
    generator: torch.Generator | None = None,
) -> list[list[list[int]]]:
    """Draw `n` answers of at most `max_tokens` tokens to each prompt, in the order of the prompts.

    An answer ends with its end token, if it came to one. Temperature 0 takes the likeliest token (n copies of one
    answer). The same generator state, on the same machine, gives the same answers. Prompts of one length are read
    together, once each, whatever `n`; so no padding is needed."""
    if n < 1 or max_tokens < 1 or temperature < 0:
        raise ValueError(
            f"n and max_tokens are at least 1 and temperature at least 0, not {n}, {max_tokens}, "
            f"{temperature}"
        )
    answers: list[list[list[int]]] = [[] for _ in prompts]
    drawn = n if temperature else 1
    for group in _groups([len(p) for p in prompts], max(1, ROWS // drawn)):
        tokens = torch.tensor([list(prompts[i]) for i in group], device=model.device)
        for i, rows in zip(
            group, _write(model, tokens, drawn, temperature, max_tokens, eos_ids, generator), strict=True
        ):
            answers[i] = rows if temperature else rows * n
    return answers


def _groups(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Return the indices of prompts of one length, at most `size` together."""
    if 0 in lengths:
        raise ValueError("a prompt has no tokens")
    by_length: dict[int, list[int]] = {}
    for i, length in enumerate(lengths):
        by_length.setdefault(length, []).append(i)
    return [same[i : i + size] for same in by_length.values() for i in range(0, len(same), size)]


def _write(
    model: Any,
    prompts: Tensor,
    n: int,
    temperature: float,
    max_tokens: int,
    eos_ids: Collection[int],
    generator: torch.Generator | None,
) -> list[list[list[int]]]:
    """Return answers to prompts [P, T]. Rows that have ended leave the batch once they are a quarter of it."""
    out = model(input_ids=prompts, use_cache=True, logits_to_keep=1)
    cache, logits = out.past_key_values, out.logits[:, -1].repeat_interleave(n, dim=0)
    cache.batch_repeat_interleave(n)
    ends = torch.tensor(sorted(eos_ids), device=prompts.device)
    written = torch.full((len(logits), max_tokens), -1, device=prompts.device)
    rows = torch.arange(len(logits), device=prompts.device)
    live = torch.ones(len(rows), dtype=torch.bool, device=prompts.device)
    for at in range(max_tokens):
        token = _draw(logits, temperature, generator)
        written[rows[live], at] = token[live]
        live &= ~torch.isin(token, ends)
        left = int(live.sum())
        if not left or at + 1 == max_tokens:
            break
        if left <= 0.75 * len(live):
            cache.batch_select_indices(live.nonzero()[:, 0])
            rows, token = rows[live], token[live]
            live = torch.ones(left, dtype=torch.bool, device=prompts.device)
        logits = model(input_ids=token[:, None], past_key_values=cache, use_cache=True).logits[:, -1]
    texts = [[t for t in row if t >= 0] for row in written.tolist()]
    return [texts[i : i + n] for i in range(0, len(texts), n)]


def _draw(logits: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    """Return one token [R] for logits [R, V]."""
    if not temperature:
        return logits.argmax(dim=-1)
    probabilities = torch.softmax(logits.float() / temperature, dim=-1)
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]
