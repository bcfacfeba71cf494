"""The optimizers: PyTorch's AdamW, or bitsandbytes' with moments of 8 bits (Dettmers et al. 2022, arXiv 2110.02861)."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from typing import Any

import torch

from ramify_trainer.errors import TrainerError
from ramify_trainer.learning.config import LearningConfig

__all__ = ["BLOCK", "SMALL", "optimizer_of", "require_optimizer"]

BLOCK = 256
"""Numbers of a moment in 8 bits that share a scale in float32."""
SMALL = 4096
"""Parameters with fewer numbers have moments in float32 all the same."""


def require_optimizer(config: LearningConfig) -> None:
    """Raise `TrainerError` if the optimizer's library is not installed."""
    if config.optimizer == "adamw_8bit" and importlib.util.find_spec("bitsandbytes") is None:
        raise TrainerError(
            'learning.optimizer is "adamw_8bit", which needs bitsandbytes: '
            "pip install '.[8bit]' in a checkout, or set \"adamw\""
        )


def optimizer_of(groups: Iterable[dict[str, Any]], config: LearningConfig) -> torch.optim.Optimizer:
    """Return the configured optimizer for groups of parameters. Raises `TrainerError` if its library is missing."""
    require_optimizer(config)
    common: dict[str, Any] = {
        "betas": (0.9, config.adam_beta2),
        "eps": 1e-8,
        "weight_decay": config.weight_decay,
    }
    if config.optimizer == "adamw":
        # all parameters at once, as is usual on a GPU, need one more copy of them
        return torch.optim.AdamW(groups, **common, foreach=False)
    from bitsandbytes.optim import AdamW8bit

    eight: torch.optim.Optimizer = AdamW8bit(groups, **common, min_8bit_size=SMALL)
    return eight
