"""Outcomes of a tree's answers: verifier first, then people, then, if configured, the outcome model.

Pure: nothing is graded here, and what the log holds is read, never overwritten. If several sources know an answer, its
outcome is their mean by the configured weights; if none does, the answer stays unlabelled: a verifier that failed says
nothing, and nothing is not 0.

A decision that could have gone otherwise (2026-11-24): a `truncated` end is no answer, so nobody need be asked and its
outcome is 0. (The server backs it up as 0 for the same reason.) A policy that rambles past the cap would otherwise go
unpunished.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ramify.search.records import Verdict
from ramify.search.tree import Node, Tree
from ramify_trainer.learning.config import LearningConfig


class OutcomeWeights(BaseModel):
    """How much each source counts where it knows an answer. 0 leaves the source out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    verifier: float = Field(default=1.0, ge=0)
    human: float = Field(default=1.0, ge=0)
    model: float = Field(default=0.0, ge=0)
    """The outcome model's own guess. Above 0 the trainer learns from what its model believes: off by default, and
    then only used where neither a verifier nor a person has spoken."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """A later verdict on an answer, as the log's `outcome` records hold it."""

    node: int | None
    """The node that ends the answer; `None` where only its text was given."""
    answer: str | None
    """The answer's text."""
    outcome: float
    """In [0, 1]."""
    source: Literal["human", "verifier"] = "human"
    train: bool = True
    """Whether whoever gave it may feed training."""


def answer_ends(tree: Tree) -> list[Node]:
    """The nodes that can be labelled: ends of complete answers, and of truncated ones."""
    return [node for node in tree.nodes if node.terminal is not None]


def label_answers(
    tree: Tree,
    verdicts: Sequence[Feedback],
    graded: Mapping[int, Verdict | None],
    weights: OutcomeWeights,
) -> dict[int, float]:
    """Node id → outcome in [0, 1], of every answer that anybody could judge.

    `verdicts` are the tree's later verdicts, oldest first: of one source the last on a node counts. `graded` holds what
    the trainer's own verifier said of a node, `None` where it failed."""
    later = _later(tree, verdicts)
    labels = {}
    for node in answer_ends(tree):
        if node.terminal == "truncated":
            labels[node.id] = 0.0
            continue
        known = {
            "verifier": _verified(node, graded, later.get((node.id, "verifier"))),
            "human": later.get((node.id, "human"), node.outcome if node.outcome_source == "human" else None),
        }
        outcome = _mean(known, weights)
        if outcome is None:
            outcome = _mean({"model": node.value}, weights)
        if outcome is not None:
            labels[node.id] = outcome
    return labels


def _later(tree: Tree, verdicts: Sequence[Feedback]) -> dict[tuple[int, str], float]:
    """The last verdict of each source on each node. One on a text counts for every answer of that text."""
    found: dict[tuple[int, str], float] = {}
    for verdict in verdicts:
        if not verdict.train:
            continue
        if not 0 <= verdict.outcome <= 1:
            raise ValueError(f"a verdict on {tree.id} is {verdict.outcome}, outside [0, 1]")
        if verdict.node is not None:
            named = [verdict.node]
        else:
            named = [n.id for n in tree.complete() if tree.text(n).strip() == (verdict.answer or "").strip()]
        for node in named:
            found[node, verdict.source] = verdict.outcome
    return found


def _verified(node: Node, graded: Mapping[int, Verdict | None], later: float | None) -> float | None:
    """The trainer's own verifier, else a program's later verdict, else what the server's verifier logged."""
    verdict = graded.get(node.id)
    if verdict is not None:
        return verdict.outcome
    if later is not None:
        return later
    return node.outcome if node.outcome_source == "verifier" else None


def _mean(known: Mapping[str, float | None], weights: OutcomeWeights) -> float | None:
    """Σ w·outcome / Σ w over the sources that know one."""
    pairs = [(getattr(weights, source), value) for source, value in known.items() if value is not None]
    total = sum(weight for weight, _ in pairs)
    return sum(w * value for w, value in pairs) / total if total > 0 else None


@dataclass(frozen=True, slots=True)
class LabelledTree:
    """What a round learns from. The tree itself is as it was logged."""

    tree: Tree
    outcomes: Mapping[int, float]
    """Node id of an answer's end → outcome in [0, 1]; absent where nobody could tell."""
    staleness: int = 0
    """Releases between the oldest one that wrote a node of the tree and the served one; 0 for the served one."""


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
