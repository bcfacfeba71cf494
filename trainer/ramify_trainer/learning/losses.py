"""The objectives, on the log-probabilities of single tokens. Sums, not means: whoever calls divides once, by the whole
step's weighted count, so that neither accumulation nor the number of processes changes a gradient.

π is the policy in training, μ the behaviour policy whose log-probs were logged with the tokens, ρ = π/μ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ramify_trainer.learning.config import LearningConfig

__all__ = ["Loss", "imitation_loss", "policy_loss", "value_loss"]

MAX_LOG_RATIO = 20.0
"""Log-ratios beyond ± this are cut before they are exponentiated: exp(20) is 5e8."""
BINS = 10
"""Bins of the calibration error."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A sum over a batch, and sums for the metrics."""

    total: Tensor
    """[], to be divided by the step's weighted count."""
    sums: dict[str, Tensor]
    """Detached; float64, [] or [BINS]."""


def policy_loss(
    logprobs: Tensor,
    entropy: Tensor,
    reference: Tensor | None,
    columns: Mapping[str, Tensor],
    config: LearningConfig,
) -> Loss:
    """Return clipped PPO or CISPO on ρ, + β·KL to the reference, - the entropy bonus; all arguments [k].

    PPO (Schulman et al. 2017, eq. 7): -min(ρ·A, clip(ρ, 1-ε_low, 1+ε_high)·A), ρ truncated at `ratio_cap`, beyond
    which it has no gradient (a negative advantage alone would let it grow without bound). CISPO (arXiv 2506.13585):
    -stop_gradient(clip(ρ))·A·ln π."""
    weight, advantage = columns["weight"], columns["advantage"]
    log_ratio = logprobs - columns["logprob"]
    ratio = _truncated_ratio(log_ratio, config.ratio_cap)
    clipped = ratio.clamp(1 - config.clip_low, 1 + config.clip_high)
    if config.ratio == "ppo":
        surrogate = torch.minimum(ratio * advantage, clipped * advantage)
    else:
        surrogate = clipped.detach() * advantage * logprobs
    total = -(weight * surrogate).sum()
    acts = ((ratio > 1 + config.clip_high) & (advantage > 0)) | (
        (ratio < 1 - config.clip_low) & (advantage < 0)
    )
    sums = {
        "ratio": _sum(weight, ratio),
        "log_ratio_squared": _sum(weight, log_ratio**2),
        "clipped": _sum(weight, acts),
        "truncated": _sum(weight, log_ratio > math.log(config.ratio_cap)),
        "advantage_squared": _sum(weight, advantage**2),
    }
    return _regularised(total, sums, logprobs, entropy, reference, weight, ratio, config)


def imitation_loss(
    logprobs: Tensor,
    entropy: Tensor,
    reference: Tensor | None,
    columns: Mapping[str, Tensor],
    config: LearningConfig,
) -> Loss:
    """Return -ln π, weighted (`visits`, `sft`), + β·KL to the reference on these tokens, - the entropy bonus."""
    weight = columns["weight"]
    ones = torch.ones_like(weight)
    return _regularised(-(weight * logprobs).sum(), {}, logprobs, entropy, reference, weight, ones, config)


def _regularised(
    total: Tensor,
    sums: dict[str, Tensor],
    logprobs: Tensor,
    entropy: Tensor,
    reference: Tensor | None,
    weight: Tensor,
    ratio: Tensor,
    config: LearningConfig,
) -> Loss:
    """Add β·KL by the k3 estimator (Schulman 2020): ρ·(r - 1 - ln r), r = π_ref/π. The tokens are μ's; under ρ their
    mean, and its gradient, are those under π."""
    sums = {**sums, "weight": weight.double().sum(), "entropy": _sum(weight, entropy)}
    sums["tokens"] = (weight > 0).double().sum()
    if reference is not None:
        log_r = (reference - logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        k3 = ratio * (log_r.exp() - 1 - log_r)
        total = total + config.kl_beta * (weight * k3).sum()
        sums["kl"] = _sum(weight, k3)
    if config.entropy:
        total = total - config.entropy * (weight * entropy).sum()
    return Loss(total, {**sums, "loss": total.detach().double()})


def _truncated_ratio(log_ratio: Tensor, cap: float) -> Tensor:
    """Return min(exp(log ρ), cap)."""
    return log_ratio.clamp(-MAX_LOG_RATIO, math.log(cap)).exp()


def value_loss(logits: Tensor, columns: Mapping[str, Tensor], kind: str) -> Loss:
    """Return cross-entropy, or squared error of sigmoid(logit), to targets in [0, 1] at step ends [k]."""
    weight, target = columns["weight"], columns["target"]
    value = torch.sigmoid(logits)
    if kind == "bce":
        each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    else:
        each = (value - target) ** 2
    total = (weight * each).sum()
    bins = (value.detach() * BINS).long().clamp(0, BINS - 1)
    per_bin = torch.zeros(3, BINS, dtype=torch.float64, device=logits.device)
    for row, column in enumerate((torch.ones_like(value), value.detach(), target)):
        per_bin[row].index_add_(0, bins, (weight * column).double())
    error = target - value
    sums = {
        "loss": total.detach().double(),
        "weight": weight.double().sum(),
        "places": (weight > 0).double().sum(),
        "target": _sum(weight, target),
        "target_squared": _sum(weight, target**2),
        "error": _sum(weight, error),
        "error_squared": _sum(weight, error**2),
        "bin_weight": per_bin[0],
        "bin_value": per_bin[1],
        "bin_target": per_bin[2],
    }
    return Loss(total, sums)


def _sum(weight: Tensor, values: Tensor) -> Tensor:
    return (weight.double() * values.detach().double()).sum()
