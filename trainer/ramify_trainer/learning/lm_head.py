"""The policy's log-probabilities of chosen tokens, without the logits of all others.

With a vocabulary of 150,000 the logits of 4,096 tokens are 2.5 GB in float32, and their log-softmax as much again. So
`lm_head` is applied to the hidden states that a loss reads and to no others, a chunk of them at a time, and what a
chunk needs for its gradient is computed again in the backward pass.
"""

from __future__ import annotations

from copy import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import BaseModelOutput

__all__ = ["scored", "trunk_of"]

LOGITS = 2**24
"""Logits that are made at once: 64 MiB in float32."""


def trunk_of(model: Any) -> Any:
    """Return the part of a causal language model, or of a classifier, that gives the hidden states."""
    # Llama 4's text model is not under the name that it gives itself
    return model.model if model.base_model is model else model.base_model


def scored(model: Any, states: Tensor, labels: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
    """Return ln π of each label [k] and π's entropy [k], in float32.

    `states` [k, H] are those of `model`'s trunk, a causal language model; π is the softmax of its logits divided by the
    temperature [k]."""
    head = _without_trunk(model)

    def one(chunk: Tensor, labels: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
        logits = head(inputs_embeds=chunk[None], use_cache=False).logits[0]
        logprobs = torch.log_softmax(logits.float() / temperature[:, None], dim=-1)
        chosen = logprobs.gather(1, labels[:, None])[:, 0].clone()  # no view: FSDP2 warns of those
        return chosen, -(logprobs.exp() * logprobs).sum(dim=-1)

    size = max(1, LOGITS // model.config.get_text_config().vocab_size)
    chunks = list(zip(*(torch.split(each, size) for each in (states, labels, temperature)), strict=True))
    if len(chunks) == 1:
        return one(*chunks[0])
    found = [checkpoint(one, *chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks]
    logprobs, entropy = (torch.cat(each) for each in zip(*found, strict=True))
    return logprobs, entropy


def _without_trunk(model: Any) -> Any:
    """Return what the model does with its trunk's hidden states, which it takes as `inputs_embeds`: its own forward
    pass, since some scale or cap what `lm_head` gives (Gemma 2, Cohere, Granite)."""
    head, trunk = copy(model), trunk_of(model)
    head._modules = {name: _Given() if part is trunk else part for name, part in model._modules.items()}
    return head


class _Given(nn.Module):
    """A trunk that returns the hidden states that it is given."""

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> _Output:
        return _Output(last_hidden_state=inputs_embeds)

    @property
    def decoder(self) -> _Given:
        """OPT's head asks this part of its trunk."""
        return self


class _Output(BaseModelOutput):  # type: ignore[misc]
    """A trunk's output that has nothing but hidden states: no cache, no router's logits."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("_"):
            raise AttributeError(name)
