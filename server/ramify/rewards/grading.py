"""A verifier as the `Task` of a search: on the event loop, or in worker processes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from ramify.rewards.pool import Pool, PoolLimits
from ramify.rewards.verifier import Verifier, checked_feedback, checked_final, checked_verdict
from ramify.search.records import Verdict

MAX_FINAL = 500
"""Characters of a final answer."""
MAX_COMPARED = 32
"""Answers that one call compares a new one with."""

_limits = PoolLimits()
"""Bounds of the shared pools."""
_pools: dict[type[Verifier], Pool] = {}
"""The process's shared pool of each task."""


class DirectTask:
    """A verifier whose time is bounded, asked on the event loop."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier

    async def final(self, text: str) -> str | None:
        return checked_final(self._verifier.final(text))

    async def grade(self, text: str) -> Verdict:
        return checked_verdict(self._verifier.grade(text))

    async def feedback(self, text: str, outcome: float | None) -> str:
        return checked_feedback(self._verifier.feedback(text, outcome))


class WorkerTask:
    """A verifier asked in worker processes. All that fails there is a `CallFailed`.

    If equality is pairwise (`Verifier.match`), `final` keeps classes of equal answers for the life of the task: a
    new answer is compared with the first of each class (the older answer stands as the reference) and takes that
    answer's text as its canonical form. Texts that are the same, and answers of one spelling, are not compared.
    """

    def __init__(self, verifier: Verifier, pool: Pool | None) -> None:
        self._problem = verifier.model_dump_json(by_alias=True)
        self._max_text = verifier.max_text
        self._grade_seconds, self._final_seconds = verifier.grade_seconds, verifier.final_seconds
        self._pairwise = verifier.compares_pairs()
        self._pool = pool or shared_pool(type(verifier))
        self._finals: dict[str, str | None] = {}
        """Text → canonical form."""
        self._classes: dict[str, str] = {}
        """Canonical form → the text that brought it."""
        self._aliases: dict[str, str] = {}
        """An answer in one spelling → canonical form."""
        self._grouping = asyncio.Lock()

    async def grade(self, text: str) -> Verdict:
        """Judge a text. Raises `CallFailed` (a `GradingFailed`) if that did not end, died or raised."""
        reply = await self._call("grade", self._grade_seconds, text=text[-self._max_text :])
        return Verdict(reply["outcome"], reply["reason"])

    async def feedback(self, text: str, outcome: float | None) -> str:
        """Say what is wrong with a text. Raises `CallFailed` (a `GradingFailed`) if that cannot be told."""
        said: str = await self._call(
            "feedback", self._grade_seconds, text=text[-self._max_text :], outcome=outcome
        )
        return said

    async def final(self, text: str) -> str | None:
        """Return the canonical form of a text's answer; `None` if it has none.

        Raises `CallFailed` (a `GradingFailed`) if it could not be read or compared; the next call tries again.
        """
        tail = text[-self._max_text :]
        async with self._grouping:
            if tail not in self._finals:
                self._finals[tail] = await self._canonical(tail)
        return self._finals[tail]

    async def _canonical(self, text: str) -> str | None:
        final: str | None = await self._call("final", self._final_seconds, text=text)
        if not final:
            return None
        final = final[:MAX_FINAL]
        if not self._pairwise:
            return final
        if final not in self._aliases:
            self._aliases[final] = await self._equal_class(text) or final
            self._classes.setdefault(self._aliases[final], text)
        return self._aliases[final]

    async def _equal_class(self, text: str) -> str | None:
        """Return the canonical form of the class that a text's answer belongs to."""
        forms = list(self._classes)
        for start in range(0, len(forms), MAX_COMPARED):
            some = forms[start : start + MAX_COMPARED]
            others = [self._classes[form] for form in some]
            equal: int | None = await self._call("match", self._final_seconds, text=text, others=others)
            if equal is not None:
                return some[equal]
        return None

    async def _call(self, function: str, seconds: float | None, **arguments: object) -> Any:
        return await self._pool.call(function, {"problem": self._problem, **arguments}, seconds)


BoundTask = DirectTask | WorkerTask
"""A problem and its rules (`search.protocols.Task`), which also say what is wrong with an answer."""


def bound(verifier: Verifier, pool: Pool | None = None) -> BoundTask:
    """Return a verifier as a search asks it; `pool` replaces the process's shared pool of that task."""
    return DirectTask(verifier) if verifier.in_process else WorkerTask(verifier, pool)


def shared_pool(verifier: type[Verifier]) -> Pool:
    """Return the process's shared pool of a task. It starts no process before its first call."""
    if verifier not in _pools:
        # A call waits at least as long as the one before it may run.
        patience = max(_limits.patience, verifier.grade_seconds or 0.0)
        _pools[verifier] = Pool(functions_path(verifier), replace(_limits, patience=patience))
    return _pools[verifier]


def set_workers(count: int) -> None:
    """Give each shared pool that is made from now on so many worker processes: 1 or more."""
    global _limits
    _limits = replace(_limits, workers=count)


async def close_pools() -> None:
    """End the shared pools; the next use starts others."""
    while _pools:
        _, pool = _pools.popitem()
        await pool.close()


def functions_path(verifier: type[Verifier]) -> str:
    """Return what a pool of this task's workers is made with."""
    return f"{verifier.__module__}:{verifier.__qualname__}.functions"
