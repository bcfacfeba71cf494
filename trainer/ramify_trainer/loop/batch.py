"""A round's trees: frozen on disk once pulled, so that training again is training on the same, and labelled."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from ramify.rewards import registry
from ramify.search.codec import tree_from_dict, tree_to_dict
from ramify.search.protocols import GradingFailed
from ramify.search.records import Verdict
from ramify.search.tree import Tree
from ramify_trainer.learning.labelled import LabelledTree
from ramify_trainer.learning.outcomes import Feedback, OutcomeWeights, answer_ends, label
from ramify_trainer.loop.state import replace
from ramify_trainer.pulling import Pulled


async def freeze(records: AsyncIterator[Pulled], path: Path) -> None:
    """Keep what was pulled, one JSON object a line; trees that are not to be trained on are left out."""
    lines = []
    async for record in records:
        if record.tree is not None and not record.tree.train:
            continue
        tree = None if record.tree is None else tree_to_dict(record.tree)
        said = {
            "outcome": record.outcome,
            "node": record.node,
            "answer": record.answer,
            "source": record.source,
        }
        lines.append(json.dumps({"tree_id": record.tree_id, "tree": tree, **said}))
    replace(path, "".join(f"{line}\n" for line in lines).encode())


async def labelled(
    path: Path, weights: OutcomeWeights, staleness: Callable[[str], int]
) -> list[LabelledTree]:
    """The frozen trees with what is known of their answers: the task's verifier asked anew, and later verdicts."""
    trees: dict[str, Tree] = {}
    verdicts: dict[str, list[Feedback]] = {}
    for record in _records(path):
        if record["tree"] is not None:
            trees[record["tree_id"]] = tree_from_dict(record["tree"])
        else:
            said = Feedback(record["node"], record["answer"], record["outcome"], record["source"])
            verdicts.setdefault(record["tree_id"], []).append(said)
    return [
        LabelledTree(
            tree,
            label(tree, verdicts.get(tree.id, ()), await _graded(tree), weights),
            max((staleness(node.release) for node in tree.nodes[1:]), default=0),
        )
        for tree in trees.values()
    ]


def _records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


async def _graded(tree: Tree) -> dict[int, Verdict | None]:
    """What the task's verifier says of every finished answer; None where it failed, nothing where there is no task."""
    if tree.task not in registry.VERIFIABLE or tree.problem is None:
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


def right_answers(trees: Sequence[LabelledTree]) -> float:
    """The share of trees that hold a right answer."""
    return sum(1.0 in t.outcomes.values() for t in trees) / len(trees) if trees else 0.0
