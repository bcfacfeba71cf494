"""Searches that share a policy: how the time of a step is learned, and how many draws each has in flight."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from fakes import FakePolicy, letters
from ramify.engines.ports import EngineStats
from ramify.search.batch import Batch
from ramify.search.crowd import Crowd, StepTime, StepTimes
from ramify.search.records import BudgetLimits, Continuation, Sampling
from search_worlds import STEP, world
from virtual_time import run

SLOW = StepTime(fixed=0.01, each=0.0005)
MANY = letters(dict.fromkeys("abcdefghijklmnop", 1 / 16), 3)


@dataclass
class Counting(FakePolicy):
    """Takes 0.1 s for an answer."""

    draws: int = 0
    most_draws: int = 0

    async def sample(
        self, prefix: Sequence[int], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Continuation]:
        self.draws += len(seeds)
        self.most_draws = max(self.most_draws, self.draws)
        try:
            return await super().sample(prefix, sampling, seeds)
        finally:
            self.draws -= len(seeds)

    async def _take_time(self) -> None:
        await asyncio.sleep(0.1)


def seen(times: StepTimes, time: StepTime, sequences: Iterable[int]) -> StepTimes:
    for n in sequences:
        times.see(n, time.of(n))
    return times


def test_a_step_s_time_is_learned_from_steps_of_different_sizes() -> None:
    fit = seen(StepTimes(), SLOW, [*range(1, 60)]).fit
    assert fit is not None
    assert (fit.fixed, fit.each) == pytest.approx((SLOW.fixed, SLOW.each))


def test_nothing_is_known_before_steps_differ() -> None:
    assert StepTimes().fit is None
    assert seen(StepTimes(), SLOW, [32] * 100).fit is None


def test_among_equal_steps_the_pace_is_followed() -> None:
    times = seen(StepTimes(), SLOW, [*range(1, 60)])
    fit = seen(times, StepTime(SLOW.fixed * 2, SLOW.each * 2), [40] * 5000).fit
    assert fit is not None
    assert fit.of(40) == pytest.approx(2 * SLOW.of(40), rel=0.01)


def test_steps_that_take_less_time_the_larger_they_are_say_nothing() -> None:
    assert seen(StepTimes(), StepTime(fixed=0.1, each=-0.001), range(1, 60)).fit is None


def test_a_step_counts_the_sequences_that_end_in_it_and_no_time_in_which_the_engine_idled() -> None:
    stats = EngineStats()
    for n in [*range(1, 50), *range(50, 0, -1)]:
        stats.stepped(n, stats.at + SLOW.of(max(n, stats.running)))
    stats.stepped(0, stats.at + SLOW.of(1))
    stats.stepped(1, stats.at + 100)  # after a pause
    fit = stats.step_times.fit
    assert fit is not None
    assert (fit.fixed, fit.each) == pytest.approx((SLOW.fixed, SLOW.each))
    assert stats.steps == 101


def test_a_step_that_does_not_tell_its_sequences_is_part_of_the_next() -> None:
    stats = EngineStats()
    for n in range(1, 50):
        stats.stepped(None, stats.at + SLOW.of(n) / 2)
        stats.stepped(n, stats.at + SLOW.of(n) / 2)
    fit = stats.step_times.fit
    assert fit is not None
    assert (fit.fixed, fit.each) == pytest.approx((SLOW.fixed, SLOW.each))
    assert (stats.steps, stats.running) == (98, 49)


def landed(each: int, searches: int, seconds: float, length: float) -> float:
    """Whole answers that a search lands with `each` under way, by the formula of the module."""
    return each * (seconds / (length * SLOW.of(searches * each)) - 0.5)


@pytest.mark.parametrize("searches", [1, 4, 8])
@pytest.mark.parametrize("seconds", [1.0, 5.0])
def test_a_share_lands_the_most_answers(searches: int, seconds: float) -> None:
    async def shared() -> float:
        crowd = Crowd(lambda: SLOW)
        async with AsyncExitStack() as all_of_them:
            for _ in range(searches):
                await all_of_them.enter_async_context(crowd.joined())
            return crowd.share(seconds, 20, 40)

    share = asyncio.run(shared())
    most = max(range(1, 500), key=lambda each: landed(each, searches, seconds, 20))
    assert abs(share - most) <= 1


def test_a_share_is_one_at_least_and_all_while_no_step_is_known() -> None:
    assert Crowd(lambda: SLOW).share(0.01, 1000, 1000) == 1
    assert Crowd(lambda: None).share(0.01, 1000, 1000) == math.inf


def test_before_any_answer_the_longest_that_could_land_counts_and_then_another_search_s() -> None:
    crowd = Crowd(lambda: SLOW)
    assert crowd.share(1.0, 0, 40) == crowd.share(1.0, 40, 40)
    assert crowd.share(1.0, 20, 40) == crowd.share(1.0, 0, 40) > Crowd(lambda: SLOW).share(1.0, 0, 40)
    assert Crowd(lambda: SLOW).share(1.0, 0, 1_000_000) > 1


@pytest.mark.parametrize("others", [0, 3])
def test_seconds_are_worth_the_tokens_of_a_search_s_share(others: int) -> None:
    async def told() -> tuple[float, float | None, float | None]:
        crowd = Crowd(lambda: SLOW)
        async with AsyncExitStack() as all_of_them:
            for _ in range(others):
                await all_of_them.enter_async_context(crowd.joined())
            crowd.share(1.0, 20, 40)
            worth, few = crowd.worth(1.0, 1_000, 40), crowd.worth(1.0, 4, 40)
            await all_of_them.enter_async_context(crowd.joined())
            return crowd.share(1.0, 0, 40), worth, few

    share, worth, few = asyncio.run(told())
    assert worth == pytest.approx(20 * landed(int(share), others + 1, 1.0, 20))
    assert few == pytest.approx(20 * landed(4, others + 1, 1.0, 20))


def test_of_an_unknown_engine_seconds_have_no_worth_and_before_any_answer_the_longest_counts() -> None:
    assert Crowd(lambda: None).worth(1.0, 4, 40) is None
    fresh, crowd = Crowd(lambda: SLOW), Crowd(lambda: SLOW)
    crowd.share(1.0, 40, 100)
    assert fresh.worth(1.0, 1_000, 40) == crowd.worth(1.0, 1_000, 100)
    assert crowd.worth(0.1, 1_000, 100) == 0  # no answer would land


def most_in_flight(
    budget: BudgetLimits,
    *,
    searches: int = 2,
    batch: bool = False,
    known: bool = True,
    **shape: Any,
) -> int:
    """The most draws in flight at once of searches. known: how long answers are, of seven tokens."""

    async def under_way() -> int:
        policy, crowd = Counting(MANY), Crowd(lambda: StepTime(0.01, 0.01))
        if known:
            crowd.share(1.0, 7, 7)
        shared = Batch(None) if batch else None
        clock = asyncio.get_running_loop().time
        asked = {"algorithm": "mcts", "parallel": 8, "width": 1, "action": STEP, **shape}
        worlds = [
            world(policy=policy, clock=clock, crowd=crowd, batch=shared, seed=i, budget=budget, **asked)
            for i in range(searches)
        ]
        await asyncio.gather(*(one.run() for one in worlds))
        return policy.most_draws

    return run(under_way())


SHORT = BudgetLimits(seconds=0.5)
"""√(2 · 0.01 s · 0.5 s / 7) = 0.038 s a step is best, so 2 draws are in flight: one of each of two searches."""


@pytest.mark.parametrize(
    "shape", [{}, {"algorithm": "best_of_n", "width": None, "action": None}, {"schedule": "waves"}]
)
def test_searches_on_a_clock_keep_to_their_share(shape: dict[str, Any]) -> None:
    assert most_in_flight(SHORT, **shape) == 2
    # 0.338 s a step is best for 40 s: 32 draws, more than two searches of 8 may have
    assert most_in_flight(BudgetLimits(seconds=40.0, simulations=50), **shape) == 16


def test_the_first_searches_keep_to_it_before_any_has_an_answer() -> None:
    assert most_in_flight(SHORT, known=False) == 2


def test_searches_of_a_batch_keep_to_it_too() -> None:
    assert most_in_flight(SHORT, batch=True) == 2


def test_a_share_is_of_draws_and_not_of_plans() -> None:
    assert most_in_flight(SHORT, searches=1, width=1) == 2
    # A plan of four answers makes as many draws as there is room for, and one if there is none.
    assert most_in_flight(SHORT, searches=1, width=4) == 2
    assert most_in_flight(SHORT, searches=4, width=4) == 4
    assert most_in_flight(BudgetLimits(seconds=40.0, simulations=50), searches=1, width=4, parallel=1) == 4


def test_searches_on_no_clock_have_no_share_and_take_none() -> None:
    assert most_in_flight(BudgetLimits(simulations=50)) == 16

    async def among_others() -> float:
        crowd = Crowd(lambda: SLOW)
        others = world(policy=Counting(MANY), crowd=crowd, budget=BudgetLimits(simulations=50), action=STEP)
        growing = asyncio.create_task(others.run())
        await asyncio.sleep(0)
        share = crowd.share(1.0, 20, 40)
        await growing
        return share

    assert run(among_others()) == Crowd(lambda: SLOW).share(1.0, 20, 40)


def test_a_search_that_is_cancelled_as_it_joins_is_closed_and_counts_no_more() -> None:
    async def cancelled() -> tuple[float, str]:
        crowd = Crowd(lambda: SLOW)
        one = world(policy=Counting(MANY), crowd=crowd, budget=SHORT, action=STEP)
        task = asyncio.create_task(one.run())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        async with crowd.joined():
            return crowd.share(1.0, 20, 40), one.tree.status

    assert run(cancelled()) == (Crowd(lambda: SLOW).share(1.0, 20, 40), "cancelled")
