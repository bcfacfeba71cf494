"""The verifier's word on a finished tree, for people who look at it."""

from __future__ import annotations

from ramify.evaluation.reading import graded
from ramify.rewards.errors import BadProblem
from ramify.rewards.registry import gradable, task
from ramify.search.tree import Tree


async def right_nodes(tree: Tree) -> frozenset[int] | None:
    """The nodes that end right answers; `None` where the tree's task has no verifier."""
    if tree.task not in gradable():
        return None
    try:
        rules = task(tree.task, tree.problem or {})
    except BadProblem:
        return None
    return (await graded(tree, rules)).right
