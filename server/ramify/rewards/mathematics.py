"""The `math` task: answers compared as mathematics, in worker processes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cache
from typing import Any

from ramify.rewards.pool import Pool, PoolLimits
from ramify.rewards.schemas import MathProblem
from ramify.rewards.tasks import shown
from ramify.search.records import Verdict

FUNCTIONS = "ramify.rewards.math_equality"
MAX_TEXT = 8_192
"""Characters of a text that a worker gets to see, counted from its end, where answers are."""
MAX_FINAL = 500
"""Characters of a final answer."""
MAX_COMPARED = 32
"""Answers that one call compares a new one with."""
COMPARING_SECONDS = 2.0
"""Seconds that reading an answer, or comparing it with others, may take."""


def math_pool(limits: PoolLimits | None = None) -> Pool:
    """A pool of math-verify workers of one's own."""
    return Pool(FUNCTIONS, limits)


class MathTask:
    """One right answer, compared as mathematics.

    Equality is pairwise, so `finals` keeps classes of equal answers for the life of the task: a new answer is
    compared with the first of each class (the older answer stands as the reference) and takes that answer's text as
    its canonical form. Texts that are the same, and answers of one spelling, are not compared.
    """

    def __init__(self, problem: MathProblem, pool: Pool) -> None:
        self._reference = problem.answer
        self._pool = pool
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
        if reply["equal"]:
            return Verdict(1.0, "correct")
        if reply["final"] is None:
            return Verdict(0.0, "no answer was found in the text")
        return Verdict(0.0, f"the answer is {shown(reply['final'])}, not {shown(self._reference)}")

    async def finals(self, texts: Sequence[str]) -> list[str | None]:
        """The canonical form of each text's answer; `None` if a text has none.

        Raises `CallFailed` (a `GradingFailed`) if one could not be read or compared: a deadline or a crash.
        """
        tails = [text[-MAX_TEXT:] for text in texts]
        async with self._grouping:
            for tail in tails:
                if tail not in self._finals:
                    self._finals[tail] = await self._canonical(tail)
        return [self._finals[tail] for tail in tails]

    async def _canonical(self, text: str) -> str | None:
        final: str | None = await self._ask("extract", text=text)
        if not final:
            return None
        final = final[:MAX_FINAL]
        if final not in self._aliases:
            self._aliases[final] = await self._equal_class(text) or final
            self._classes.setdefault(self._aliases[final], text)
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
