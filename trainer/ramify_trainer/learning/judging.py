"""What a value model that is not served says of whole sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

__all__ = ["values"]

TOKENS = 16_384
"""Of one forward pass, padding included."""


@torch.inference_mode()
def values(
    model: Any, sequences: Sequence[Sequence[int]], calibration: tuple[float, float] = (1.0, 0.0)
) -> list[float]:
    """sigmoid(a·logit + b) at the end of every sequence (prompt and answer so far), in their order.

    `model` is a one-label sequence classifier over a causal trunk. Sequences of about one length run together, padded
    on the right, where a causal trunk's earlier positions cannot see it; the last real token is taken by its place, so
    that neither padding nor a pad token inside a sequence matters."""
    a, b = calibration
    if not all(sequences):
        raise ValueError("a sequence has no tokens")
    found = [0.0] * len(sequences)
    order = sorted(range(len(sequences)), key=lambda i: -len(sequences[i]))
    while order:
        length = len(sequences[order[0]])
        group, order = order[: max(1, TOKENS // length)], order[max(1, TOKENS // length) :]
        lasts = torch.tensor([len(sequences[i]) - 1 for i in group], device=model.device)
        rows = [[*sequences[i], *[0] * (length - len(sequences[i]))] for i in group]
        out = model.base_model(input_ids=torch.tensor(rows, device=model.device), use_cache=False)
        hidden = out.last_hidden_state[torch.arange(len(group), device=model.device), lasts]
        judged = torch.sigmoid(a * model.score(hidden)[:, 0].float() + b).tolist()
        for i, value in zip(group, judged, strict=True):
            found[i] = value
    return found
