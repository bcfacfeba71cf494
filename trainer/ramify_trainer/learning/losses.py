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

__all__ = ["Loss", "policy_loss", "value_loss"]

MAX_LOG_RATIO = 20.0
"""Log-ratios beyond ± this are cut before they are exponentiated: exp(20) is 5e8."""
BINS = 10
"""Bins of the calibration error."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A sum over a batch, and sums for the metrics."""

    totals: Mapping[str, Tensor]
    """[] each, by the column of weights whose sum over the whole step it is to be divided by."""
    sums: dict[str, Tensor]
    """Detached; float64, [] or [BINS]."""


def policy_loss(
    logprobs: Tensor,
    entropy: Tensor,
    reference: Tensor | None,
    columns: Mapping[str, Tensor],
    config: LearningConfig,
) -> Loss:
    """Return the objective's loss, + β·KL to the reference, - the entropy bonus, by `weight`; and, if configured, α
    times the imitation of right answers, by `imitated`. All arguments are [k].

    The objective's loss is PPO or CISPO on ρ, or -ln π (`visits`, `sft`). The regularisers are of the same tokens."""
    weight = columns["weight"]
    if config.needs_ratio:
        total, ratio, sums = _surrogate(logprobs, columns, config)
    else:
        total, ratio, sums = -(weight * logprobs).sum(), torch.ones_like(weight), {}
    regularised, more = _regularised(logprobs, entropy, reference, weight, ratio, config)
    total = total + regularised
    totals = {"weight": total}
    sums |= {**more, "loss": total.detach().double(), "tokens": (weight > 0).double().sum()}
    if config.imitate:
        imitated = columns["imitated"]
        totals["imitated"] = -config.imitate * (imitated * logprobs).sum()
        sums["imitated"] = imitated.double().sum()
        sums["imitated_loss"] = _sum(imitated, -logprobs)
        sums["imitated_tokens"] = (imitated > 0).double().sum()
    return Loss(totals, sums)


def _surrogate(
    logprobs: Tensor, columns: Mapping[str, Tensor], config: LearningConfig
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return the surrogate's loss, ρ, and sums.

    PPO (Schulman et al. 2017, eq. 7): -min(ρ·A, clip(ρ, 1-ε_low, 1+ε_high)·A), ρ truncated at `ratio_cap`, beyond
    which it has no gradient (a negative advantage alone would let it grow without bound). CISPO (MiniMax-M1, arXiv
    2506.13585, eq. 4 and 5): -stop_gradient(min(ρ, cap))·A·ln π: as published the ratio has no lower bound, and an
    upper one that is all there is to tune."""
    weight, advantage = columns["weight"], columns["advantage"]
    log_ratio = logprobs - columns["logprob"]
    ratio = _truncated_ratio(log_ratio, config.ratio_cap)
    stopped = torch.zeros_like(weight, dtype=torch.bool)
    if config.ratio == "ppo":
        clipped = ratio.clamp(1 - config.clip_low, 1 + config.clip_high)
        surrogate = torch.minimum(ratio * advantage, clipped * advantage)
        stopped = torch.where(
            advantage > 0, ratio > 1 + config.clip_high, (ratio < 1 - config.clip_low) & (advantage < 0)
        )
    else:
        surrogate = ratio.detach() * advantage * logprobs
    sums = {
        "ratio": _sum(weight, ratio),
        "log_ratio_squared": _sum(weight, log_ratio**2),
        "clipped": _sum(weight, stopped),
        "truncated": _sum(weight, log_ratio > math.log(config.ratio_cap)),
        "advantage_squared": _sum(weight, advantage**2),
    }
    return -(weight * surrogate).sum(), ratio, sums


def _regularised(
    logprobs: Tensor,
    entropy: Tensor,
    reference: Tensor | None,
    weight: Tensor,
    ratio: Tensor,
    config: LearningConfig,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return β·KL less the entropy bonus, and sums. KL is by the k3 estimator (Schulman 2020): ρ·(r - 1 - ln r),
    r = π_ref/π. The tokens are μ's; under ρ their mean, and its gradient, are those under π. The entropy is that of
    the whole vocabulary."""
    total = weight.new_zeros(())
    sums = {"weight": weight.double().sum(), "entropy": _sum(weight, entropy)}
    if reference is not None:
        log_r = (reference - logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        k3 = ratio * (log_r.exp() - 1 - log_r)
        total = total + config.kl_beta * (weight * k3).sum()
        sums["kl"] = _sum(weight, k3)
    if config.entropy:
        total = total - config.entropy * (weight * entropy).sum()
    return total, sums


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
    return Loss({"weight": total}, sums)


def _sum(weight: Tensor, values: Tensor) -> Tensor:
    return (weight.double() * values.detach().double()).sum()
