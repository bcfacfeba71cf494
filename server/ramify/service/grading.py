"""Grade the answer of an ended search with its task's verifier, and count the verifiers and the feedback that fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ramify.rewards import registry
from ramify.search.grouping import in_time
from ramify.search.protocols import GradingFailed, Reviser, Task, Write
from ramify.search.records import AnswerVerdict, Revision, Verdict
from ramify.search.tree import Tree

logger = logging.getLogger(__name__)
LONGEST_REASON = 500
"""Characters."""


class CountedTask:
    """A task that passes everything on to another, and reports the kind of each `GradingFailed`."""

    def __init__(self, task: Task, failed: Callable[[str], None]) -> None:
        self._task, self._failed = task, failed

    async def final(self, text: str) -> str | None:
        return await self._task.final(text)

    async def grade(self, text: str) -> Verdict:
        try:
            return await self._task.grade(text)
        except GradingFailed as error:
            self._failed(getattr(error, "kind", "no_verifier"))
            raise


def counting(revise: Reviser, failed: Callable[[str], None]) -> Reviser:
    """Return a reviser that does as another, and reports the kind of each `GradingFailed`."""

    async def revised(text: str, outcome: float | None, write: Write) -> Revision:
        try:
            return await revise(text, outcome, write)
        except GradingFailed as error:
            failed(getattr(error, "kind", "no_feedback"))
            raise

    return revised


async def grade_answer(tree: Tree, task: Task, seconds: float, over: asyncio.Event) -> None:
    """Write what the task's verifier says of the chosen answer into `tree.verdict`, within `seconds`, and only until
    `over` is set. Raises nothing: a verifier that fails leaves the outcome empty and its reason says so."""
    answer = tree.answer
    if answer is None or tree.task not in registry.gradable():
        return
    if answer.outcome is not None and answer.outcome_source == "verifier":
        tree.verdict = AnswerVerdict(answer.outcome, "graded during the search")
        return
    grading = asyncio.create_task(task.grade(answer.text))
    try:
        if await in_time(grading, over, seconds):
            verdict = grading.result()
            tree.verdict = AnswerVerdict(verdict.outcome, verdict.reason[:LONGEST_REASON])
        else:
            tree.verdict = AnswerVerdict(None, "the verifier gave no answer in time")
    except GradingFailed as error:
        tree.verdict = AnswerVerdict(None, f"the verifier failed: {error}"[:LONGEST_REASON])
    except Exception as error:  # nothing may stand between the end of a search and its row
        logger.exception("the answer of %s cannot be judged", tree.id)
        tree.verdict = AnswerVerdict(None, f"the verifier failed: {type(error).__name__}")
    finally:
        grading.cancel()
