"""Every arm on every problem, in turns, so that a machine that grows slower does so for all of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ramify.rewards.registry import task
from ramify.rewards.verifier import Example
from ramify_client import AsyncClient
from research.duels.arms import Arm, Budget, Sized
from research.duels.engine import Engine

FIRST_SIZE, FITS = 16, 2
"""Candidates of the first trial of an arm that knows no budget, and how often its size is corrected."""


@dataclass(frozen=True, slots=True)
class Row:
    """One arm's answer to one problem."""

    arm: str
    budget: str
    problem: str
    right: float
    """1 if our verifier calls the answer right, else 0."""
    tokens: int
    """Generated tokens."""
    seconds: float
    """From the first request to the answer."""


@dataclass(frozen=True, slots=True)
class Duel:
    """The server, and how it is asked."""

    client: AsyncClient
    temperature: float
    concurrency: int
    """Problems at once."""

    async def rows(
        self,
        arms: Sequence[Arm | Sized],
        problems: Sequence[Example],
        trial: Sequence[Example],
        budget: Budget,
        tell: Callable[[str], object] = lambda line: None,
    ) -> list[Row]:
        """Have every arm answer every problem. trial: other problems, on which sizes are fitted to the budget."""
        fixed = [
            await self._fitted(arm, trial, budget, tell) if isinstance(arm, Sized) else arm for arm in arms
        ]
        rows: list[Row] = []
        turn = 2 * self.concurrency
        for first in range(0, len(problems), turn):
            for arm in fixed:
                rows += await self._turn(arm, problems[first : first + turn], budget)
            tell(f"{budget}: {min(first + turn, len(problems))} of {len(problems)} problems")
        return rows

    async def _fitted(
        self, arm: Sized, trial: Sequence[Example], budget: Budget, tell: Callable[[str], object]
    ) -> Arm:
        size = arm.fitted(FIRST_SIZE, 1)
        for _ in range(FITS):
            rows = await self._turn(arm.of_size(size), trial, budget)
            cost = sum(budget.cost(row.tokens, row.seconds) for row in rows) / len(rows)
            size = arm.fitted(size, cost)
        tell(f"{budget}: {arm.name} with {size} candidates")
        return arm.of_size(size)

    async def _turn(self, arm: Arm, problems: Sequence[Example], budget: Budget) -> list[Row]:
        slots = asyncio.Semaphore(self.concurrency)

        async def one(problem: Example) -> Row:
            async with slots:
                return await self._row(arm, problem, budget)

        return list(await asyncio.gather(*map(one, problems)))

    async def _row(self, arm: Arm, problem: Example, budget: Budget) -> Row:
        engine = Engine(self.client, problem.prompt, self.temperature, example=problem)
        began = time.monotonic()
        text = await arm.answer(engine, budget)
        seconds = time.monotonic() - began
        verdict = None if text is None else await task(problem.task, problem.problem).grade(text)
        right = float(verdict is not None and verdict.outcome >= 1)
        return Row(arm.name, str(budget), problem.id, right, engine.tokens, seconds)
