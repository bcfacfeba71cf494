"""The `math` task: answers compared as mathematics, in worker processes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cache
from typing import Any

from ramify.rewards.errors import CallFailed
from ramify.rewards.pool import Pool, PoolLimits
from ramify.rewards.schemas import MathProblem
from ramify.rewards.tasks import shown
from ramify.search.records import Verdict

FUNCTIONS = "ramify.rewards.math_worker"
MAX_TEXT = 8_192
"""Characters of a text that a worker gets to see, counted from its end, where answers are."""
MAX_FINAL = 500
"""Characters of a final answer."""
MAX_COMPARED = 32
"""Answers that one call compares a new one with."""
GROUPING_SECONDS = 20.0
"""Seconds that one call of `finals` may take for all of its texts."""
COMPARING_SECONDS = 2.0
"""Seconds that reading or comparing one of them may take."""


def math_pool(limits: PoolLimits | None = None) -> Pool:
    """A pool of math-verify workers of one's own."""
    return Pool(FUNCTIONS, limits)


class MathTask:
    """One right answer, compared as mathematics.

    Equality is pairwise, so `finals` keeps classes of equal answers for the life of the task: a new answer is
    compared with the first of each class (the older answer stands as the reference) and takes that answer's text as
    its canonical form. Texts that are the same, and answers of one spelling, are not compared.
    """

    def __init__(self, problem: MathProblem, pool: Pool, seconds: float = GROUPING_SECONDS) -> None:
        self._reference = problem.answer
        self._pool = pool
        self._seconds = seconds
        self._finals: dict[str, str | None] = {}
        """Text → canonical form."""
        self._classes: dict[str, str] = {}
        """Canonical form → the text that brought it."""
        self._aliases: dict[str, str] = {}
        """An answer in one spelling → canonical form."""
        self._grouping = asyncio.Lock()

    async def grade(self, text: str) -> Verdict:
        """1 if the text's answer equals the reference.

        Raises `CallFailed` (a `GradingFailed`) where it did not end or died.
        """
        reply = await self._pool.call("grade", {"reference": self._reference, "text": text[-MAX_TEXT:]})
        self._pool.counters.grading()
        if reply["equal"]:
            return Verdict(1.0, "correct")
        if reply["final"] is None:
            return Verdict(0.0, "no answer was found in the text")
        return Verdict(0.0, f"the answer is {shown(reply['final'])}, not {shown(self._reference)}")

    async def finals(self, texts: Sequence[str]) -> list[str | None]:
        """The canonical form of each text's answer; `None` if a text has none.

        An answer that could not be read or compared (deadline, crash) votes by its text alone and is counted
        in `Counters.ungrouped`.
        """
        tails = [text[-MAX_TEXT:] for text in texts]
        async with self._grouping:
            new = [tail for tail in dict.fromkeys(tails) if tail not in self._finals]
            try:
                async with asyncio.timeout(self._seconds):
                    read = await asyncio.gather(*map(self._extract, new))
                    for tail, final in zip(new, read, strict=True):
                        if tail not in self._finals:
                            self._finals[tail] = await self._canonical(tail, final) if final else None
            except TimeoutError:
                self._alone(*(tail for tail in new if tail not in self._finals))
        return [self._finals[tail] for tail in tails]

    async def _extract(self, text: str) -> str | None:
        try:
            final: str | None = await self._ask("extract", text=text)
        except CallFailed:
            self._alone(text)
            return None
        return None if final is None else final[:MAX_FINAL]

    async def _canonical(self, text: str, final: str) -> str:
        if final not in self._aliases:
            try:
                self._aliases[final] = await self._equal_class(text) or final
                self._classes.setdefault(self._aliases[final], text)
            except CallFailed:  # it stands for no class, lest it spoils the comparisons of others
                self._pool.counters.alone()
                self._aliases[final] = final
        return self._aliases[final]

    async def _equal_class(self, text: str) -> str | None:
        """The canonical form of the class that a text's answer belongs to."""
        forms = list(self._classes)
        for start in range(0, len(forms), MAX_COMPARED):
            some = forms[start : start + MAX_COMPARED]
            others = [self._classes[form] for form in some]
            found: int | None = await self._ask("match", text=text, others=others)
            if found is not None:
                return some[found]
        return None

    async def _ask(self, function: str, **arguments: object) -> Any:
        return await self._pool.call(function, arguments, COMPARING_SECONDS)

    def _alone(self, *texts: str) -> None:
        self._pool.counters.alone(len(texts))
        for text in texts:
            self._finals[text] = last_line(text)


def last_line(text: str) -> str | None:
    """The last line of a text that is not blank, blanks collapsed."""
    lines = [line for line in text.splitlines() if line.strip()]
    return " ".join(lines[-1].split())[:MAX_FINAL] if lines else None


@cache
def default_pool() -> Pool:
    """The process's shared pool. It starts no process before its first call."""
    return math_pool()


async def close_default_pool() -> None:
    """End the shared pool, if there is one; the next use starts another."""
    if default_pool.cache_info().currsize:
        pool = default_pool()
        default_pool.cache_clear()
        await pool.close()
