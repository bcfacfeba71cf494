"""Batched sampling from a policy in plain torch: K answers to each of P prompts of one length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from research.bootstrap.tiny_llama import Cache, TinyLlama
from research.bootstrap.tokenizer import EOS, PAD

__all__ = ["Sampler"]


@dataclass(frozen=True, slots=True)
class Sampler:
    """Draws answers from ``policy``; the same generator state gives the same answers."""

    policy: TinyLlama
    generator: torch.Generator
    temperature: float = 1.0
    """0 takes the most probable token."""

    @torch.inference_mode()
    def __call__(self, prompts: NDArray[np.int64], answers: int, max_tokens: int) -> NDArray[np.int64]:
        """Return answers [P, K, max_tokens] to prompts [P, T]: each ends with ``</s>``, then padding.

        An answer that is not ended by ``</s>`` within ``max_tokens`` has none.
        """
        policy, rows, length = self.policy, len(prompts), prompts.shape[1]
        hidden, prompt_cache = policy.read_prompts(torch.from_numpy(prompts))
        cache = Cache(policy.shape, rows, answers, max_tokens)
        written = torch.full((rows, answers, max_tokens), PAD)
        done = torch.zeros((rows, answers), dtype=torch.bool)
        last = hidden[:, -1:].expand(-1, answers, -1)
        for at in range(max_tokens):
            token = self._draw(F.linear(last, policy.head)).masked_fill_(done, PAD)
            written[:, :, at] = token
            done |= token == EOS
            if bool(done.all()) or at + 1 == max_tokens:
                break
            last = policy.read_answers(token[:, :, None], length, prompt_cache, cache)[:, :, 0]
        return written.numpy()

    def _draw(self, logits: Tensor) -> Tensor:
        """Return one token [P, K] for logits [P, K, V]."""
        if self.temperature == 0:
            return logits.argmax(dim=-1)
        probabilities = torch.softmax(logits / self.temperature, dim=-1)
        flat = torch.multinomial(probabilities.flatten(0, 1), 1, generator=self.generator)
        return flat.view(logits.shape[:2])
