"""Costs of a run that are counted from what it leaves: tokens of the value model, and those that training read.

A run that was made before they were counted has its trees still, so most of them are found for it as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ramify.search.tree import Tree
from ramify_trainer.loop.round_trees import TREES, read_trees
from ramify_trainer.loop.state import round_folder
from research.compare.config import ArmRun
from research.compare.points import Point

Costs = dict[str, int | None]
"""By field of a point."""


def costed(points: Sequence[Point], run: ArmRun, folder: Path) -> list[Point]:
    """Return all points of a run, the base first, with the costs that they lack and that its folder tells."""
    whole: list[Point] = []
    for point in points:
        if point.value_tokens is None:
            costs = _of_trl(point) if run.arm.trl else _of_loop(point, whole, folder / "state")
            point = point.model_copy(update=costs)
        whole.append(point)
    return whole


def _of_trl(point: Point) -> Costs:
    """Return the costs of a run without a value model that learns from every token that it samples, once."""
    return {"value_tokens": 0, "trained_tokens": point.tokens}


def _of_loop(point: Point, before: Sequence[Point], state: Path) -> Costs:
    if not before:
        return {"value_tokens": 0, "trained_tokens": 0, "read_tokens": 0}
    last, steps = before[-1], point.steps - before[-1].steps
    trained, read = (point.training.get(name) for name in ("policy/tokens", "read_tokens"))
    judged = _judged(state / round_folder(point.round) / TREES)
    return {
        "value_tokens": _sum(last.value_tokens, judged),
        "trained_tokens": _sum(last.trained_tokens, trained if steps else 0),
        "read_tokens": _sum(last.read_tokens, read if steps else 0),
    }


def _sum(before: int | None, more: float | None) -> int | None:
    return None if before is None or more is None else before + round(more)


def _judged(trees: Path) -> float | None:
    """Return the value model's tokens in a round; None if its trees are gone. Searches that an interruption cut short
    were begun again, and their policy's tokens are not counted either."""
    if not trees.exists():
        return None
    return sum(value_tokens(tree) for tree in read_trees(trees)[0] if tree.status != "cancelled")


def value_tokens(tree: Tree) -> float:
    """Return how many tokens the value model read for a search.

    The steps that a simulation adds to a path are judged in one pass, from the prompt's beginning to the last of them;
    what an earlier pass has read is read again. A sequence that two simulations drew at once is one node of the tree:
    the search's own count of sequences, which is 0 if a head on the policy's trunk judges, says how often."""
    judged = [node for node in tree.nodes[1:] if node.value is not None]
    if not judged:
        return 0.0
    read_on = {(node.parent, node.simulation) for node in judged}
    ends = [node for node in judged if (node.id, node.simulation) not in read_on]
    read = sum(len(tree.prompt_tokens) + end.length for end in ends)
    return read * tree.usage.scored_sequences / len(judged)
