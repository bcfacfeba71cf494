"""Batched sampling from any Hugging Face causal language model, for when there is no vLLM.

Prompts of any length share a batch: the shorter ones are padded on the left. Each answer follows its own seed, so it is
the same whatever else is in its batch, up to the rounding of the model.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from ramify_trainer.errors import TrainerError
from ramify_trainer.gate.unserved import AnswerJob, policy_in
from ramify_trainer.progress import Progress

__all__ = ["draw", "sample"]

ROWS = 256
"""Answers written at once."""
TOKENS = 65_536
"""Room in the KV cache for a batch: prompts, padding and the longest answers. One prompt alone may need more."""


def draw(job: AnswerJob, told: Progress) -> list[list[list[int]]]:
    """Return the answers by prompt, the greedy one first. told: called before every token with answers done, and of how
    many; what it raises ends the drawing."""
    model, count = policy_in(job.policy, adapter=job.adapter), len(job.prompts)
    n = len(job.seeds[0])
    total = count * (1 + n)

    def drawn(seeds: Sequence[Sequence[int]], temperature: float, before: int) -> list[list[list[int]]]:
        return sample(
            model,
            job.prompts,
            seeds,
            temperature=temperature,
            max_tokens=job.max_tokens,
            eos_ids=job.ends,
            told=lambda done: told(before + done, total),
        )

    greedy = drawn([(0,)] * count, 0.0, 0)
    sampled = drawn(job.seeds, 1.0, count)
    return [[*first, *rest] for first, rest in zip(greedy, sampled, strict=True)]


@torch.inference_mode()
def sample(
    model: Any,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[Sequence[int]],
    *,
    temperature: float,
    max_tokens: int,
    eos_ids: Collection[int],
    told: Callable[[int], None] = lambda ended: None,
) -> list[list[list[int]]]:
    """Draw an answer of at most `max_tokens` tokens to each prompt for each of its seeds, in their order.

    seeds: equally many for every prompt. An answer ends with its end token, if it came to one. Temperature 0 takes the
    likeliest token, whatever the seed. told: called before every token with the number of answers that are done."""
    counts = {len(own) for own in seeds}
    if len(counts) != 1 or 0 in counts or len(seeds) != len(prompts) or max_tokens < 1 or temperature < 0:
        raise ValueError(
            "every prompt needs equally many seeds, at least 1; max_tokens is at least 1 and temperature at least 0, "
            f"not {max_tokens}, {temperature}"
        )
    n, done = counts.pop(), 0
    answers: list[list[list[int]]] = [[] for _ in prompts]
    for group in _groups([len(p) for p in prompts], n, max_tokens):
        begun = done
        uniform = _uniform([seed for i in group for seed in seeds[i]], max_tokens if temperature else 0)
        rows = _write(
            model,
            [prompts[i] for i in group],
            n,
            temperature,
            uniform.to(model.device),
            max_tokens,
            eos_ids,
            lambda ended: told(begun + ended),  # noqa: B023  # called within this turn of the loop
        )
        for at, i in enumerate(group):
            answers[i] = rows[at * n : (at + 1) * n]
        done += len(rows)
    return answers


def _groups(lengths: Sequence[int], n: int, max_tokens: int) -> list[list[int]]:
    """Return the indices of prompts of about one length, as many together as there is room for with n answers each."""
    if 0 in lengths:
        raise ValueError("a prompt has no tokens")
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    groups = []
    while order:
        rows = min(ROWS, TOKENS // (lengths[order[0]] + max_tokens))
        size = max(1, rows // n)
        groups.append(order[:size])
        order = order[size:]
    return groups


def _uniform(seeds: Sequence[int], n: int) -> Tensor:
    """Return n numbers in [0, 1) for each seed, [R, n]."""
    return torch.stack([torch.rand(n, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def _write(
    model: Any,
    prompts: Sequence[Sequence[int]],
    n: int,
    temperature: float,
    uniform: Tensor,
    max_tokens: int,
    eos_ids: Collection[int],
    told: Callable[[int], None],
) -> list[list[int]]:
    """Return n answers to each prompt. Rows that have ended leave the batch once they are a quarter of it."""
    reading = _Reading(model, prompts, n)
    logits = reading.logits
    ends = torch.tensor(sorted(eos_ids), device=model.device)
    written = torch.full((len(logits), max_tokens), -1, device=model.device)
    rows = torch.arange(len(logits), device=model.device)
    live = torch.ones_like(rows, dtype=torch.bool)
    left = len(rows)
    for at in range(max_tokens):
        told(len(written) - left)
        token = _pick(logits, temperature, uniform[rows, at] if temperature else None)
        written[rows[live], at] = token[live]
        live &= ~torch.isin(token, ends)
        left = int(live.sum())
        if not left or at + 1 == max_tokens:
            break
        if left <= 0.75 * len(live):
            reading.keep(live.nonzero()[:, 0])
            rows, token = rows[live], token[live]
            live = torch.ones_like(rows, dtype=torch.bool)
        logits = reading.read(token)
    return [[t for t in row if t >= 0] for row in written.tolist()]


class _Reading:
    """A batch of texts that a model has read, each prompt n times, and goes on reading a token at a time."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], n: int) -> None:
        self.model = model
        width = max(map(len, prompts))
        tokens = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts], device=model.device)
        lengths = torch.tensor([[len(p)] for p in prompts], device=model.device)
        places = torch.arange(width, device=model.device) - (width - lengths)
        self._seen: Tensor | None = None
        """1 for a token, 0 for padding, [R, T]; None if nothing is padded."""
        if int(lengths.min()) < width:
            self._seen = (places >= 0).long()
        self._positions = "position_ids" in inspect.signature(model.forward).parameters
        self._next = lengths
        """Position of the next token, [R, 1]."""
        out = model(input_ids=tokens, use_cache=True, logits_to_keep=1, **self._padding(places.clamp_min(0)))
        self._cache = _batched(out, model)
        self.logits: Tensor = out.logits[:, -1].repeat_interleave(n, dim=0)
        """[R, V], what follows each text."""
        self._cache.batch_repeat_interleave(n)
        self._next = self._next.repeat_interleave(n, dim=0)
        if self._seen is not None:
            self._seen = self._seen.repeat_interleave(n, dim=0)

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the rows."""
        self._cache.batch_select_indices(rows)
        self._next = self._next[rows]
        if self._seen is not None:
            self._seen = self._seen[rows]

    def read(self, tokens: Tensor) -> Tensor:
        """Read a token [R] of each text, and return what follows, [R, V]."""
        if self._seen is not None:
            self._seen = torch.cat([self._seen, torch.ones_like(self._next)], dim=1)
        out = self.model(
            input_ids=tokens[:, None],
            past_key_values=self._cache,
            use_cache=True,
            **self._padding(self._next),
        )
        self._next = self._next + 1
        logits: Tensor = out.logits[:, -1]
        return logits

    def _padding(self, positions: Tensor) -> dict[str, Tensor]:
        """Return what the model must be told of the padding; without any it does as it always does."""
        if self._seen is None:
            return {}
        return {"attention_mask": self._seen} | ({"position_ids": positions} if self._positions else {})


def _batched(out: Any, model: Any) -> Any:
    """Return the KV cache of a model's output. Raises `TrainerError` if its rows cannot be repeated and selected, as
    those of recurrent and linear layers cannot."""
    cache = getattr(out, "past_key_values", None)
    if not all(hasattr(layer, "batch_repeat_interleave") for layer in getattr(cache, "layers", [None])):
        raise TrainerError(
            f"{type(model).__name__} has layers without a KV cache, whose answers transformers cannot draw in batches: "
            'set sampler.engine to "vllm"'
        )
    return cache


def _pick(logits: Tensor, temperature: float, uniform: Tensor | None) -> Tensor:
    """Return one token [R] for logits [R, V]: the first at which the cumulative probability passes `uniform` [R], or
    the likeliest without it."""
    if uniform is None:
        return logits.argmax(dim=-1)
    sums = torch.softmax(logits.float() / temperature, dim=-1).cumsum(dim=-1)
    places = torch.searchsorted(sums, (uniform * sums[:, -1])[:, None], right=True)
    return places[:, 0].clamp_max(logits.shape[-1] - 1)
