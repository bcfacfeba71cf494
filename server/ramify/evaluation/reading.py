"""Read a finished tree off: what it would have answered at each budget, and whether that is right.

At b tokens only the complete answers that had landed by then count; if there was none, the answer is wrong. The
verifier is asked here, after the search, about every complete answer, so that a row also says what a perfect judge
would have scored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from ramify.evaluation.budgets import Budget
from ramify.evaluation.metering import GrownTree
from ramify.evaluation.methods import Method
from ramify.evaluation.rows import Row
from ramify.rewards.errors import BadProblem
from ramify.rewards.registry import gradable, task
from ramify.search.answers import rank
from ramify.search.grouping import finals
from ramify.search.protocols import GradingFailed, Task
from ramify.search.tree import Tree


@dataclass(frozen=True, slots=True)
class AnswerGrades:
    """The verifier's judgement of a tree's complete answers."""

    finals: dict[int, str | None]
    """Node → canonical final answer."""
    right: frozenset[int]
    """Nodes that end a right answer."""
    failed: int
    """Answers that the verifier could not judge; they count as wrong."""


async def graded(tree: Tree, rules: Task) -> AnswerGrades:
    """Ask the verifier about every complete answer of a tree."""
    nodes = tree.complete()
    verdicts = await asyncio.gather(*(_right(rules, tree.text(node)) for node in nodes))
    return AnswerGrades(
        finals=await finals(tree, rules),
        right=frozenset(node.id for node, right in zip(nodes, verdicts, strict=True) if right),
        failed=sum(right is None for right in verdicts),
    )


async def right_nodes(tree: Tree) -> frozenset[int] | None:
    """Return the nodes that end right answers, for people who look at the tree; `None` if its task has no verifier."""
    if tree.task not in gradable():
        return None
    try:
        rules = task(tree.task, tree.problem or {})
    except BadProblem:
        return None
    return (await graded(tree, rules)).right


async def _right(rules: Task, text: str) -> bool | None:
    try:
        return (await rules.grade(text)).outcome >= 1
    except GradingFailed:
        return None


def read_off(
    grown: GrownTree,
    verdicts: AnswerGrades,
    method: Method,
    budget: Budget,
    *,
    problem: int,
    group: str,
    longer: bool,
) -> Row:
    """Return one method's row at one budget.

    `longer`: the tree grew under more tokens than this budget has, and is cut back to the first so many.
    """
    tree, cut = grown.tree, int(budget.amount) if longer else None
    ranked = rank(tree, verdicts.finals, method.answer or tree.params.answer, at_tokens=cut)
    best = ranked[0] if ranked else None
    landed = [c for c in tree.completions if cut is None or c.tokens <= cut]
    last = max((c.simulation for c in landed), default=0)
    usage = tree.usage
    return Row(
        problem=problem,
        group=group,
        method=method.name,
        budget=budget,
        correct=best is not None and best.node in verdicts.right,
        any_correct=any(c.node in verdicts.right for c in landed),
        final=best.final if best else None,
        value=best.value if best else None,
        completions=len(landed),
        tokens=max((c.tokens for c in landed), default=0) if longer else usage.completion_tokens,
        scored=_scored(tree, last) if longer else usage.scored_sequences,
        simulations=last if longer else usage.simulations,
        seconds=None if longer else usage.seconds,
        ungraded=verdicts.failed,
        policy_seconds=None if longer else grown.policy_seconds,
        value_seconds=None if longer else grown.value_seconds,
    )


def _scored(tree: Tree, simulation: int) -> int:
    if tree.params.grader == "confidence":
        return 0
    return sum(node.value is not None and node.simulation <= simulation for node in tree.nodes)


def rows_of(
    grown: GrownTree,
    verdicts: AnswerGrades,
    methods: Sequence[Method],
    budgets: Sequence[Budget],
    *,
    problem: int,
    group: str,
) -> list[Row]:
    """Return the rows of all methods that share this tree, which grew under the largest of `budgets`."""
    largest = max(budgets)
    return [
        read_off(grown, verdicts, method, budget, problem=problem, group=group, longer=budget < largest)
        for method in methods
        for budget in budgets
    ]
