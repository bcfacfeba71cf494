"""The budget's seconds, in virtual time: what is under way when they end, and how long the search takes after that."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from fakes import FakePolicy, FakeTask, letters
from ramify.search.protocols import SampleAborted
from ramify.search.records import BudgetLimits, Continuation, Sampling
from search_worlds import STEP, JudgingFake, World, check, world
from virtual_time import run

MANY = letters(dict.fromkeys("abcdefghijklmnop", 1 / 16), 3)
"""Answers of seven tokens, the end among them."""
SECONDS = 1.0
HONOURED = 0.25
"""Seconds within which a search must end once its own are over."""


class Paced(FakePolicy):
    """Takes `step` seconds for a token, and as long to let go of what is cancelled."""

    step = 0.04

    async def sample(
        self, prefix: Sequence[int], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Continuation]:
        try:
            return await super().sample(prefix, sampling, seeds)
        except SampleAborted:
            await asyncio.sleep(self.step)
            raise

    async def _take_time(self) -> None:
        await asyncio.sleep(self.step * 7)


class Hangs(FakeTask):
    async def final(self, text: str) -> str | None:
        await asyncio.Event().wait()
        raise AssertionError


def timed(**params: Any) -> World:
    async def searched() -> World:
        found = world(
            clock=asyncio.get_running_loop().time,
            **{"policy": Paced(MANY), "budget": BudgetLimits(seconds=SECONDS), **params},
        )
        await found.run()
        return found

    found = run(searched())
    check(found)
    return found


@pytest.mark.parametrize(
    "params",
    [
        {"algorithm": "mcts", "action": STEP},
        {"algorithm": "mcts", "action": STEP, "schedule": "waves"},
        {"algorithm": "mcts", "action": STEP, "expand": "step"},
        {"algorithm": "mcts", "action": STEP, "abandon": True},
        {"algorithm": "beam", "action": STEP},
        {"algorithm": "best_of_n"},
        {"algorithm": "best_of_n", "task": Hangs()},
    ],
    ids=lambda params: "-".join(str(params[key]) for key in params if key not in ("action", "task")),
)
def test_a_search_ends_within_a_quarter_second_of_its_seconds(params: dict[str, Any]):
    found = timed(**params)
    assert (found.tree.status, found.tree.stop_reason) == ("complete", "budget.seconds")
    assert found.tree.usage.seconds <= SECONDS + HONOURED


def test_what_is_in_flight_when_they_end_is_aborted_and_counted():
    found = timed(algorithm="best_of_n", parallel=4, budget=BudgetLimits(seconds=0.2))
    # an answer takes 0.28 s, and nobody knew: each draw is cut off after a token
    assert found.policy.aborted == 4
    assert found.tree.usage.completion_tokens == 4
    assert found.tree.usage.seconds >= 0.2


@pytest.mark.parametrize("algorithm", ["best_of_n", "mcts"])
def test_no_answer_is_begun_that_could_not_land_in_time(algorithm: str):
    found = timed(
        algorithm=algorithm, parallel=4, **({"width": 1, "action": STEP} if algorithm == "mcts" else {})
    )
    # an answer takes 0.28 s: three rounds of four land in 0.84 s, and a fourth would be cut off
    assert len(found.tree.completions) == 12
    assert found.policy.aborted == 0
    assert found.tree.usage.seconds == pytest.approx(0.84)
    assert found.tree.stop_reason == "budget.seconds"
    assert found.tree.answer is not None


class Noting(JudgingFake):
    """Takes 0.1 s for an answer, and notes when it began those that it may give up, and the others."""

    watched: list[float]
    others: list[float]

    async def write_on(self, *args: Any, **kwargs: Any) -> list[Continuation]:
        self.watched.append(asyncio.get_running_loop().time())
        return await super().write_on(*args, **kwargs)

    async def sample(self, *args: Any) -> list[Continuation]:
        self.others.append(asyncio.get_running_loop().time())
        return await super().sample(*args)

    async def _take_time(self) -> None:
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("cut_off", [False, True])
def test_an_answer_that_no_other_could_follow_in_time_is_not_given_up(cut_off: bool):
    policy = Noting(MANY, value=lambda text: 0.5)
    policy.watched, policy.others = [], []
    sampling = Sampling(max_tokens=4) if cut_off else Sampling()
    found = timed(
        policy=policy, algorithm="mcts", action=STEP, abandon=True, width=1, parallel=1, sampling=sampling
    )
    assert bool(found.tree.completions) is not cut_off
    # the first is written before anything is known; given up halfway, the one begun at 0.8 s is followed by another at
    # 0.85 s, which lands at 0.95 s; for that of 0.9 s there is no other
    assert policy.others == pytest.approx([0.0, 0.9])
    assert policy.watched == pytest.approx([0.1 * i for i in range(1, 9)])


def test_nothing_is_asked_for_once_they_are_over():
    found = timed(algorithm="beam", action=STEP, budget=BudgetLimits(seconds=0.5))
    # two of four steps are written, and no rollout finishes the answer
    assert {node.depth for node in found.tree.nodes} == {0, 1}
    assert found.tree.completions == []
    assert found.tree.answer is None
    assert found.tree.stop_reason == "budget.seconds"


def test_a_final_rollout_is_cut_off_too():
    # the first step leaves tokens for one answer only, which takes longer than the seconds that are left
    found = timed(
        algorithm="beam", action=STEP, width=4, sampling=Sampling(max_tokens=8),
        budget=BudgetLimits(seconds=0.4, tokens=8 + 16),
    )  # fmt: skip
    assert found.policy.aborted == 1
    assert found.tree.answer is None
    assert found.tree.usage.seconds <= 0.4 + HONOURED
