"""Outcomes of a tree's answers: by the verifier, people and scorers, else, if configured, by the outcome model.

Pure: nothing is graded here, and what the log holds is read, never overwritten. If several sources know an answer, its
outcome is their mean by the configured weights; if none does, the answer stays unlabelled: a verifier that failed says
nothing, and nothing is not 0.

A decision that could have gone otherwise (2026-11-24): a `truncated` end is no answer, so nobody need be asked and its
outcome is 0. (The server backs it up as 0 for the same reason.) A policy that rambles past the cap would otherwise go
unpunished. So would one that writes what a safety scorer prunes, whatever anybody says of the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from ramify.search.records import NO_ANSWER, OWN_POLICY, Verdict
from ramify.search.tree import Node, Tree
from ramify_trainer.learning.config import LearningConfig, Section


class OutcomeWeights(Section):
    """Weight of each source that knows an answer. 0 leaves the source out."""

    verifier: float = Field(default=1.0, ge=0)
    """The task's verifier, asked by the trainer or by the server, and programs that posted feedback."""
    human: float = Field(default=1.0, ge=0)
    """People who posted feedback."""
    scorers: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Models that gave the answer a score in its search, by their names in the server's settings (`[scorers.NAME]`)."""
    model: float = Field(default=0.0, ge=0)
    """The outcome model's own guess. Above 0 the trainer learns from what its model believes: off by default, and
    then only used if no other source has spoken."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """Feedback on an answer, as the log's records of it hold it. (A verdict is a verifier's.)"""

    node: int | None
    """The node that ends the answer; None if only its text was given."""
    answer: str | None
    """The answer's text."""
    outcome: float
    """The judgement, in [0, 1]."""
    source: Literal["human", "verifier"] = "human"
    train: bool = True
    """False: whoever gave it may not feed training."""


def answer_ends(tree: Tree) -> list[Node]:
    """Return the nodes that can be labelled: ends of complete answers, and of those cut short or pruned."""
    return [node for node in tree.nodes if node.terminal is not None]


def label_answers(
    tree: Tree,
    feedback: Sequence[Feedback],
    graded: Mapping[int, Verdict | None],
    weights: OutcomeWeights,
) -> dict[int, float]:
    """Return the outcome in [0, 1] of every answer that anybody could judge, by the id of the node that ends it.

    feedback: on the tree, oldest first; the last of a source on a node counts. graded: the verdicts of the trainer's
    own verifier by node id, None if it failed."""
    later = latest_feedback(tree, feedback)
    labels = {}
    for node in answer_ends(tree):
        if node.terminal in NO_ANSWER:
            labels[node.id] = 0.0
            continue
        verified = _verified(node, graded, later.get((node.id, "verifier")))
        said = later.get((node.id, "human"), node.outcome if node.outcome_source == "human" else None)
        scores = node.scores or {}
        known = [(weights.verifier, verified), (weights.human, said)]
        outcome = _mean([*known, *((weight, scores.get(name)) for name, weight in weights.scorers.items())])
        if outcome is None:
            outcome = _mean([(weights.model, node.value)])
        if outcome is not None:
            labels[node.id] = outcome
    return labels


def latest_feedback(tree: Tree, feedback: Sequence[Feedback]) -> dict[tuple[int, str], float]:
    """Return the last outcome of each source on each node. Feedback on a text counts for every answer of that text."""
    latest: dict[tuple[int, str], float] = {}
    for given in feedback:
        if not given.train:
            continue
        if not 0 <= given.outcome <= 1:
            raise ValueError(f"feedback on {tree.id} is {given.outcome}, outside [0, 1]")
        if given.node is not None:
            nodes = [given.node]
        else:
            nodes = [n.id for n in tree.complete() if tree.text(n).strip() == (given.answer or "").strip()]
        latest |= {(node, given.source): given.outcome for node in nodes}
    return latest


def _verified(node: Node, graded: Mapping[int, Verdict | None], later: float | None) -> float | None:
    """Return the outcome by the trainer's own verifier, else by a program's feedback, else by the server's verifier."""
    verdict = graded.get(node.id)
    if verdict is not None:
        return verdict.outcome
    if later is not None:
        return later
    return node.outcome if node.outcome_source == "verifier" else None


def _mean(known: Sequence[tuple[float, float | None]]) -> float | None:
    """Return Σ w·outcome / Σ w over the sources that know one; None if none does."""
    pairs = [(weight, value) for weight, value in known if value is not None]
    total = sum(weight for weight, _ in pairs)
    return sum(w * value for w, value in pairs) / total if total > 0 else None


@dataclass(frozen=True, slots=True)
class LabelledTree:
    """A tree as it was logged, and the outcomes of its answers: what a round learns from."""

    tree: Tree
    outcomes: Mapping[int, float]
    """Outcome in [0, 1] by the id of the node that ends an answer; absent if nobody could tell."""
    staleness: int = 0
    """Releases between the oldest one that wrote a node of the tree and the served one; 0 for the served one. Nodes of
    other policies do not count."""
    problem: tuple[int, ...] | None = None
    """The problem's prompt, if the tree's own asks for an answer better than another; None: the tree's own is it."""
    replayed: bool = False
    """True: right answers of earlier rounds, which are imitated and serve nothing else."""
    learned: frozenset[int] = frozenset()
    """Ids of nodes that an earlier round has learned from, in the part that the search has gone on from. They say what
    steps and answers are worth, as all others do, and teach nothing again themselves."""
    elsewhere: bool = False
    """True: not what this round had the release in training search, but a tree of an earlier round or release, or of
    somebody else's search. It teaches as all others do."""


Refusal = Literal[
    "not_allowed",
    "replayed",
    "greedy",
    "truncated_sampling",
    "enumerated",
    "stale",
    "unlabelled",
    "confidence",
    "others",
]
"""Reason why a tree is not learned from: the asker forbade training; of an earlier round, and to be imitated alone;
sampled at temperature 0; with top_p or top_k; tokens enumerated, not drawn; older than `max_staleness`; no answer is
labelled; its visits follow the policy's own confidence, and imitating them would teach the policy what it believes;
other policies have drawn all of it."""


def own_draws(node: Node) -> float:
    """Return how many draws of the policy that is trained took a node's action, if its log-probabilities are logged: 0
    for one that another policy of the search drew first."""
    return node.draws * node.draws_of(OWN_POLICY) / node.multiplicity if node.own else 0.0


def refusal(labelled: LabelledTree) -> Refusal | None:
    """Return why a tree cannot be learned from at all; None if it can."""
    if not labelled.tree.train:
        return "not_allowed"
    if labelled.replayed:
        return "replayed"
    return None if labelled.outcomes else "unlabelled"


def policy_refusal(labelled: LabelledTree, config: LearningConfig) -> Refusal | None:
    """Return why the policy cannot learn from a tree under the configured objective; None if it can.

    The ratio π/μ means something only if the logged log-probs are those of the policy at a known temperature: so
    temperature > 0, top_p = 1 and top_k = 0, and of several policies its own draws alone (`own_draws`). `visits` and
    `sft` imitate, whatever a tree was drawn from; `visits` needs no label."""
    tree = labelled.tree
    if config.objective == "visits" and tree.params.grader == "confidence":
        return "confidence"
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
    if not any(map(own_draws, tree.nodes[1:])):
        return "others"
    return "stale" if labelled.staleness > config.max_staleness else None
