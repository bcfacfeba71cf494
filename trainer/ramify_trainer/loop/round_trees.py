"""A round's trees: frozen on disk once pulled, so that training again is training on the same, and labelled.

The trees of a candidate that was not served have taught nothing that stays. The next round's file begins with them, so
that what was paid for is learned from until a candidate is served, or until they are too old.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ramify.files import replacing
from ramify.rewards import registry
from ramify.search.codec import tree_from_dict
from ramify.search.protocols import GradingFailed
from ramify.search.records import NO_ANSWER, Verdict
from ramify.search.tree import Tree
from ramify_trainer.learning.labels import (
    Feedback,
    LabelledTree,
    OutcomeWeights,
    answer_ends,
    label_answers,
    latest_feedback,
)
from ramify_trainer.loop.puller import TrainingRecord

TREES = "trees.ndjson"
"""File of a round's trees, in its folder."""
FetchTree = Callable[[str], Awaitable[Sequence[TrainingRecord]]]
"""Give a logged tree and the feedback on it; nothing if it is gone."""


@dataclass(frozen=True, slots=True)
class PullCounts:
    """Numbers of what a round has pulled."""

    records: int
    verdicts: int
    """Records that are feedback."""
    revisited: int
    """Trees of earlier rounds that are there again for new feedback on them."""
    carried: int
    """Trees of the rounds before that taught nothing that stayed."""


async def freeze(
    records: AsyncIterator[TrainingRecord],
    path: Path,
    fetch_tree: FetchTree | None = None,
    *,
    round_: int = 1,
    carried: Sequence[bytes] = (),
) -> PullCounts:
    """Keep what was pulled, one JSON object a line; trees that are not to be trained on are left out.

    Feedback on a tree that is not among the records brings that tree with it, and all feedback on it so far.
    carried: the lines that `unlearned` gave of the round before; they come first."""
    in_file = {line["tree_id"] for line in map(json.loads, carried) if line["tree"] is not None}
    carried_trees = len(in_file)
    elsewhere: dict[str, None] = {}
    count = verdicts = revisited = 0
    with replacing(path) as file:
        file.writelines(carried)
        async for record in records:
            count += 1
            if record.tree is not None:
                in_file.add(record.tree_id)
            else:
                verdicts += 1
            if record.tree_id in in_file:
                file.write(_line(record, round_))
            else:
                elsewhere[record.tree_id] = None
        # Feedback on a tree that an earlier round has read: the tree is learned from again.
        for tree_id in elsewhere:
            logged = [] if fetch_tree is None else await fetch_tree(tree_id)
            if logged and _is_trained_on(logged[0]):
                revisited += 1
                file.writelines(_line(each, round_) for each in logged)
    return PullCounts(count, verdicts, revisited, carried_trees)


def unlearned(path: Path, since: int) -> list[bytes]:
    """Return the lines of a round's file that were first pulled in the round `since` or later; none without a file."""
    if not path.exists():
        return []
    with path.open("rb") as lines:
        return [line for line in lines if json.loads(line)["round"] >= since]


def _line(record: TrainingRecord, round_: int) -> bytes:
    """Return a line of the file; empty for a tree that is not to be trained on. round_: the round that pulled it."""
    if record.tree is not None and not _is_trained_on(record):
        return b""
    feedback = None if record.feedback is None else asdict(record.feedback)
    kept = {"round": round_, "tree_id": record.tree_id, "tree": record.tree, "feedback": feedback}
    return json.dumps(kept).encode() + b"\n"


def _is_trained_on(record: TrainingRecord) -> bool:
    return record.tree is not None and bool(record.tree.get("train", True))


async def label_trees(
    path: Path,
    weights: OutcomeWeights,
    staleness: Callable[[str], int],
    *,
    collected: Collection[str] | None = None,
) -> list[LabelledTree]:
    """Return the frozen trees with what is known of their answers: the task's verifier asked anew, and feedback.
    collected: the ids of those that the round itself had searched; `None`: all of them.

    Nodes that an earlier round has learned from, in the part that a search has gone on from, are named as such."""
    trees, feedback = await asyncio.to_thread(read_trees, path)
    longest, feedback = without_parts(trees, feedback)
    known = {tree.id: tree for tree in trees}
    labelled = []
    for tree in longest:
        said = feedback.get(tree.id, ())
        outcomes = label_answers(tree, said, await _grade(tree), weights)
        learned = frozenset(range(first_new_node(tree, known))) - judged_steps(tree, said)
        stale = max((staleness(node.release) for node in tree.nodes[1:] if node.own), default=0)
        elsewhere = stale > 0 or (collected is not None and tree.id not in collected)
        labelled.append(LabelledTree(tree, outcomes, stale, learned=learned, elsewhere=elsewhere))
    return labelled


def without_parts(
    trees: Sequence[Tree], feedback: Mapping[str, Sequence[Feedback]]
) -> tuple[list[Tree], dict[str, list[Feedback]]]:
    """Leave out each tree that another goes on from, whose draws are the first of the longer one. Feedback on it is on
    the same nodes there."""
    longer = {tree.continues.tree: tree.id for tree in trees if tree.continues is not None}
    given: dict[str, list[Feedback]] = {}
    for tree_id, some in feedback.items():
        while tree_id in longer:
            tree_id = longer[tree_id]
        given.setdefault(tree_id, []).extend(some)
    return [tree for tree in trees if tree.id not in longer], given


def first_new_node(tree: Tree, known: Mapping[str, Tree]) -> int:
    """Return the id of a tree's first node that no earlier round has read: 0 unless it goes on from a tree that is not
    one of those `known` in this round."""
    while tree.continues is not None:
        if tree.continues.tree not in known:
            return tree.continues.usage.nodes
        tree = known[tree.continues.tree]
    return 0


def judged_steps(tree: Tree, feedback: Sequence[Feedback]) -> set[int]:
    """Return the ids of the nodes that make up the answers that feedback is on: they are learned from once more."""
    judged = {node for node, _ in latest_feedback(tree, feedback)}
    return {step.id for end in answer_ends(tree) if end.id in judged for step in tree.steps(end)}


def read_trees(path: Path) -> tuple[list[Tree], dict[str, list[Feedback]]]:
    """Return the trees of a round in their order, without the policy's confidence, and the feedback by tree id, oldest
    first."""
    trees: list[Tree] = []
    feedback: dict[str, list[Feedback]] = {}
    with path.open(encoding="utf-8") as lines:
        for record in map(json.loads, lines):
            if record["tree"] is not None:
                trees.append(without_confidence(tree_from_dict(record["tree"])))
            else:
                feedback.setdefault(record["tree_id"], []).append(Feedback(**record["feedback"]))
    return trees, feedback


def without_confidence(tree: Tree) -> Tree:
    """Return a tree of a search by the policy's confidence without its values; any other as it is.

    A confidence is no estimate of an outcome: values that end a return, baselines and labels of the model must not be
    made of it. The draws and whatever a verifier or a person said of the answers stay."""
    if tree.params.grader != "confidence":
        return tree
    return replace(tree, nodes=[replace(node, value=None) for node in tree.nodes])


async def _grade(tree: Tree) -> dict[int, Verdict | None]:
    """Return the task's verdict on every finished answer, by node id: None if the verifier failed on it; nothing at
    all if no task can be verified."""
    await asyncio.sleep(0)  # others may go on between two trees
    if tree.task not in registry.gradable() or tree.problem is None:
        return {}
    task = registry.task(tree.task, tree.problem)
    graded: dict[int, Verdict | None] = {}
    for node in answer_ends(tree):
        if node.terminal in NO_ANSWER:
            continue
        try:
            graded[node.id] = await task.grade(tree.text(node))
        except GradingFailed:
            graded[node.id] = None
    return graded


def solved_share(trees: Sequence[LabelledTree]) -> float:
    """Return the share of trees that hold a right answer."""
    return sum(1.0 in t.outcomes.values() for t in trees) / len(trees) if trees else 0.0
