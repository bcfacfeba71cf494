"""A round in figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import comb
from statistics import fmean

import torch
from torch import Tensor

from ramify_trainer.learning.labels import LabelledTree, own_draws

__all__ = ["RoundMetrics", "draw_figures", "pass_at_k", "policy_figures", "value_figures"]

KS = (1, 8)
"""Numbers of answers of which one is to be right."""


@dataclass(frozen=True, slots=True)
class RoundMetrics:
    """The figures of one round's training. Those of a network are means over the tokens (policy) or step ends (value)
    that it was trained on, by weight, each taken before the step that it led to."""

    trees: int
    steps: int
    """Optimizer steps of this round."""
    read_tokens: int
    """Tokens read in these steps, prompts and shared beginnings included: of every network, and as often as it read
    them. What is read before the first step, by the reference for one, is not in it."""
    seconds: float
    staleness: float
    """Mean over the trees, in releases."""
    masked_share: float
    """Share of trees of which nobody labelled an answer."""
    packed: float = 1.0
    """1 if both networks read packed trees, 0 if one of them reads path by path."""
    refused: Mapping[str, int] = field(default_factory=dict)
    """Trees that did not serve the policy, by reason (see `labels.Refusal`)."""
    draws: Mapping[str, float] = field(default_factory=dict)
    """See `draw_figures`."""
    lessons: Mapping[str, float] = field(default_factory=dict)
    """See `pieces.PolicyLessons`; empty if the policy is not trained."""
    policy: Mapping[str, float] = field(default_factory=dict)
    """See `policy_figures`; empty if no tree served the policy."""
    value: Mapping[str, float] = field(default_factory=dict)
    """See `value_figures`; empty if no tree served the value model."""

    def figures(self) -> dict[str, float]:
        """Return all of it, flat: `policy/kl`, `refused/stale`, ..."""
        plain = {"trees", "steps", "read_tokens", "seconds", "staleness", "masked_share", "packed"}
        figures = {name: float(getattr(self, name)) for name in sorted(plain)}
        for group in ("refused", "draws", "lessons", "policy", "value"):
            figures |= {f"{group}/{name}": float(x) for name, x in getattr(self, group).items()}
        return figures


def draw_figures(trees: Sequence[LabelledTree], correct: float) -> dict[str, float]:
    """Return `entropy`, the mean of -ln μ over all tokens that the policy itself drew in the round's own searches and
    no earlier round has learned from, in nats: an estimate of the policy's own; and `pass_at_1` and `pass_at_8`, means
    over all trees that hold labelled answers.

    Trees of earlier rounds and of other people's searches were drawn at other temperatures, some by other weights.

    Answers of a tree share their beginnings and are no independent draws: its pass@k says what the search found, not
    what the policy would without it. correct: the least outcome of a right answer."""
    figures = {}
    own = [one for one in trees if not one.elsewhere]
    sampled = [one for one in own if one.tree.params.action.kind != "token"]  # those are enumerated
    new = [n for one in sampled for n in one.tree.nodes[1:] if n.id not in one.learned]
    drawn = [(own_draws(n), n.logprobs) for n in new]
    if tokens := sum(times * len(logprobs) for times, logprobs in drawn):
        figures["entropy"] = -sum(times * sum(logprobs) for times, logprobs in drawn) / tokens
    counts = [_counts(one, correct) for one in trees if one.outcomes]
    for k in KS if counts else ():
        figures[f"pass_at_{k}"] = fmean(pass_at_k(n, right, k) for n, right in counts)
    return figures


def pass_at_k(draws: int, right: int, k: int) -> float:
    """Return the chance that one of k answers is right that are chosen from `draws`, of which `right` are (Chen et al.
    2021, eq. 1); with fewer than k, that any is."""
    k = min(k, draws)
    return 1.0 - comb(draws - right, k) / comb(draws, k)


def _counts(labelled: LabelledTree, correct: float) -> tuple[int, int]:
    """Return how many labelled answers were drawn, repeated ones too, and how many of them are right. Without
    replacement hardly any is repeated: the figures are then of distinct answers."""
    nodes = labelled.tree.nodes
    drawn = {i: nodes[i].multiplicity for i in labelled.outcomes}
    return sum(drawn.values()), sum(m for i, m in drawn.items() if labelled.outcomes[i] >= correct)


def policy_figures(sums: Mapping[str, Tensor], norms: list[float]) -> dict[str, float]:
    """Return of the objective's tokens `loss`, `entropy` (nats), `kl` (to the reference), `tokens`; of the ratio
    objectives `ratio_mean`, `log_ratio_squared`, `clip_share` (of tokens whose gradient the clip stopped),
    `truncated_share`, `advantage_rms`; of what is imitated beside it `imitated_loss` (-ln π), `imitated_tokens`; and
    `grad_norm`. There is none of what had no weight."""
    names = {
        "ratio": "ratio_mean",
        "clipped": "clip_share",
        "truncated": "truncated_share",
        "log_ratio_squared": "log_ratio_squared",
        "advantage_squared": "advantage_rms",
        "kl": "kl",
        "entropy": "entropy",
        "loss": "loss",
    }
    figures: dict[str, float] = {}
    if weight := sums["weight"]:
        figures = {new: (sums[old] / weight).item() for old, new in names.items() if old in sums}
        figures["tokens"] = sums["tokens"].item()
    if "advantage_rms" in figures:
        figures["advantage_rms"] **= 0.5
    if imitated := sums.get("imitated"):
        figures["imitated_loss"] = (sums["imitated_loss"] / imitated).item()
        figures["imitated_tokens"] = sums["imitated_tokens"].item()
    return {**figures, "grad_norm": sum(norms) / len(norms)} if figures else {}


def value_figures(sums: Mapping[str, Tensor], norms: list[float]) -> dict[str, float]:
    """Return `loss`, `error` (root mean square), `bias`, `explained_variance` 1 - Var(G - v)/Var(G),
    `calibration_error` (expected, over ten bins), `places`, `grad_norm`."""
    weight = sums["weight"]
    if not weight:
        return {}
    error = sums["error"] / weight
    left = sums["error_squared"] / weight - error**2
    spread = sums["target_squared"] / weight - (sums["target"] / weight) ** 2
    gaps = (sums["bin_value"] - sums["bin_target"]).abs().sum() / weight
    return {
        "loss": (sums["loss"] / weight).item(),
        "error": (sums["error_squared"] / weight).sqrt().item(),
        "bias": -error.item(),
        "explained_variance": (1 - left / spread.clamp_min(1e-12)).item() if spread > 1e-9 else 0.0,
        "calibration_error": gaps.item(),
        "places": sums["places"].item(),
        "grad_norm": sum(norms) / len(norms),
    }


def merged(sums: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the sums of several steps in one."""
    names = {name: None for each in sums for name in each}
    return {name: torch.stack([each[name] for each in sums if name in each]).sum(dim=0) for name in names}
