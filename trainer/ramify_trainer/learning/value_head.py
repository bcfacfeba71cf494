"""A linear value head on the policy's trunk, on disk: value = sigmoid(a·logit + b), logit = weight·h + bias, with h the
hidden state after the final norm. Beside it, the tokens that the server's engine judges at the state before them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoTokenizer

from ramify.tokens import closing_tokens, eos_ids
from ramify.weights import HEAD, check_value_head

__all__ = ["closing_of", "read_head", "write_head"]


def read_head(file: Path, size: int) -> nn.Linear:
    """Return the head in a file, for hidden states of `size` numbers. Raises `WeightsError` if it is another's."""
    check_value_head(file, size)
    head = nn.Linear(size, 1)
    head.load_state_dict(load_file(file))
    return head


def write_head(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Write `weight` and `bias` as the folder's file, in float32. Raises `ValueError` if a number is not finite."""
    tensors = {name: tensor.detach().float().contiguous() for name, tensor in weights.items()}
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"the head's {name} holds numbers that are not finite: it is not exported")
    folder.mkdir()
    save_file(tensors, folder / HEAD)
    (folder / HEAD).chmod(0o644)


def closing_of(policy: Path) -> frozenset[int]:
    """Return the tokens that only close what was written, of the model directory `policy`."""
    tokenizer = AutoTokenizer.from_pretrained(policy, local_files_only=True)
    return closing_tokens(tokenizer, eos_ids(policy, tokenizer))
