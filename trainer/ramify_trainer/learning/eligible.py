"""Which trees may serve which objective, and why the others may not."""

from __future__ import annotations

from ramify_trainer.learning.config import LearningConfig
from ramify_trainer.learning.labelled import LabelledTree

__all__ = ["REFUSALS", "policy_refusal", "refusal"]

REFUSALS = ("not_allowed", "greedy", "truncated_sampling", "enumerated", "stale", "unlabelled")
"""Every reason: the asker forbade training; sampled at temperature 0; with top_p or top_k; tokens enumerated, not
drawn; older than `max_staleness`; no answer is labelled."""


def refusal(labelled: LabelledTree) -> str | None:
    """Why a tree serves nothing at all; `None` where it serves."""
    if not labelled.tree.train:
        return "not_allowed"
    return None if labelled.outcomes else "unlabelled"


def policy_refusal(labelled: LabelledTree, config: LearningConfig) -> str | None:
    """Why a tree does not serve the policy under the configured objective; `None` where it does.

    The ratio π/μ means something only where the logged log-probs are those of the policy at a known temperature: so
    temperature > 0, top_p = 1 and top_k = 0. `visits` and `sft` imitate, whatever it was drawn from; `visits` needs
    no label."""
    tree = labelled.tree
    reason = refusal(labelled)
    if reason is not None:
        return None if reason == "unlabelled" and config.objective == "visits" else reason
    if not config.needs_ratio:
        return None
    if tree.sampling.temperature <= 0:
        return "greedy"
    if tree.sampling.top_p < 1 or tree.sampling.top_k > 0:
        return "truncated_sampling"
    if config.objective == "tree_ppo" and tree.params.action.kind == "token":
        return "enumerated"
    return "stale" if labelled.staleness > config.max_staleness else None
