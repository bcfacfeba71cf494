"""A task whose grading failures are counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ramify.search.protocols import GradingFailed, Task
from ramify.search.records import Verdict


class CountedTask:
    """Passes everything on; tells the kind of each `GradingFailed`."""

    def __init__(self, task: Task, failed: Callable[[str], None]) -> None:
        self._task, self._failed = task, failed

    async def finals(self, texts: Sequence[str]) -> list[str | None]:
        return await self._task.finals(texts)

    async def grade(self, text: str) -> Verdict:
        try:
            return await self._task.grade(text)
        except GradingFailed as error:
            self._failed(getattr(error, "kind", "no_verifier"))
            raise
