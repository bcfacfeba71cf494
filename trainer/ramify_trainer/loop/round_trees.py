"""A round's trees: frozen on disk once pulled, so that training again is training on the same, and labelled.

The trees of a candidate that was not served have taught nothing that stays. The next round's file begins with them, so
that what was paid for is learned from until a candidate is served, or until they are too old.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ramify.rewards import registry
from ramify.search.codec import tree_from_dict, tree_to_dict
from ramify.search.protocols import GradingFailed
from ramify.search.records import Verdict
from ramify.search.tree import Tree
from ramify_trainer.learning.labels import Feedback, LabelledTree, OutcomeWeights, answer_ends, label_answers
from ramify_trainer.loop.puller import TrainingRecord
from ramify_trainer.loop.state import replacing

FetchTree = Callable[[str], Awaitable[tuple[Tree, Sequence[TrainingRecord]] | None]]
"""A logged tree and the verdicts on it; None if it is gone."""


@dataclass(frozen=True, slots=True)
class PullCounts:
    """What a round has pulled."""

    records: int
    verdicts: int
    revisited: int
    """Trees of earlier rounds that are there again for their new verdicts."""
    carried: int
    """Trees of the rounds before that taught nothing that stayed."""


async def freeze(
    records: AsyncIterator[TrainingRecord],
    path: Path,
    earlier: FetchTree | None = None,
    *,
    round_: int = 1,
    carried: Sequence[bytes] = (),
) -> PullCounts:
    """Keep what was pulled, one JSON object a line; trees that are not to be trained on are left out.

    A verdict on a tree that is not among the records brings that tree with it, and every verdict on it so far. carried:
    the lines that `unlearned` gave of the round before; they come first."""
    seen = {line["tree_id"] for line in map(json.loads, carried) if line["tree"] is not None}
    known = len(seen)
    late: dict[str, None] = {}
    count = verdicts = revisited = 0
    with replacing(path) as file:
        file.writelines(carried)
        async for record in records:
            count, verdicts = count + 1, verdicts + (record.tree is None)
            if record.tree is not None:
                seen.add(record.tree_id)
            if record.tree is not None or record.tree_id in seen:
                file.write(_line(record, round_))
            else:
                late[record.tree_id] = None
        for tree_id in late:
            found = None if earlier is None else await earlier(tree_id)
            if found is not None and found[0].train:
                revisited += 1
                file.writelines(_line(r, round_) for r in (TrainingRecord(0, tree_id, found[0]), *found[1]))
    return PullCounts(count, verdicts, revisited, known)


def unlearned(path: Path, since: int) -> list[bytes]:
    """The lines of a round's file that were first pulled in the round `since` or later; none if there is no file."""
    if not path.exists():
        return []
    with path.open("rb") as lines:
        return [line for line in lines if json.loads(line)["round"] >= since]


def _line(record: TrainingRecord, round_: int) -> bytes:
    """One line of the file; empty for a tree that is not to be trained on. round_: the one that has pulled it."""
    if record.tree is not None and not record.tree.train:
        return b""
    said = {
        "round": round_,
        "tree_id": record.tree_id,
        "tree": None if record.tree is None else tree_to_dict(record.tree),
        "outcome": record.outcome,
        "node": record.node,
        "answer": record.answer,
        "source": record.source,
    }
    return json.dumps(said).encode() + b"\n"


async def labelled(
    path: Path, weights: OutcomeWeights, staleness: Callable[[str], int]
) -> list[LabelledTree]:
    """The frozen trees with what is known of their answers: the task's verifier asked anew, and later verdicts."""
    trees, verdicts = await asyncio.to_thread(frozen, path)
    return [
        LabelledTree(
            tree,
            label_answers(tree, verdicts.get(tree.id, ()), await _graded(tree), weights),
            max((staleness(node.release) for node in tree.nodes[1:]), default=0),
        )
        for tree in trees
    ]


def frozen(path: Path) -> tuple[list[Tree], dict[str, list[Feedback]]]:
    """The trees of a round in their order, and the verdicts by tree, oldest first."""
    trees: list[Tree] = []
    verdicts: dict[str, list[Feedback]] = {}
    with path.open(encoding="utf-8") as lines:
        for record in map(json.loads, lines):
            if record["tree"] is not None:
                trees.append(tree_from_dict(record["tree"]))
            else:
                said = Feedback(record["node"], record["answer"], record["outcome"], record["source"])
                verdicts.setdefault(record["tree_id"], []).append(said)
    return trees, verdicts


async def _graded(tree: Tree) -> dict[int, Verdict | None]:
    """What the task's verifier says of every finished answer; None where it failed, nothing where there is no task."""
    await asyncio.sleep(0)  # others may go on between two trees
    if tree.task not in registry.gradable() or tree.problem is None:
        return {}
    task = registry.task(tree.task, tree.problem)
    graded: dict[int, Verdict | None] = {}
    for node in answer_ends(tree):
        if node.terminal == "truncated":
            continue
        try:
            graded[node.id] = await task.grade(tree.text(node))
        except GradingFailed:
            graded[node.id] = None
    return graded


def solved_share(trees: Sequence[LabelledTree]) -> float:
    """The share of trees that hold a right answer."""
    return sum(1.0 in t.outcomes.values() for t in trees) / len(trees) if trees else 0.0
