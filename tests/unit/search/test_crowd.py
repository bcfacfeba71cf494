"""Searches that share a policy: how the time of a step is found out, and how many answers each keeps under way."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from contextlib import AsyncExitStack

import pytest

from fakes import FakePolicy, letters
from ramify.engines.ports import EngineStats
from ramify.search.crowd import Crowd, StepTime, StepTimes
from ramify.search.records import BudgetLimits, Sampling
from search_worlds import world
from virtual_time import run

SLOW = StepTime(fixed=0.01, each=0.0005)
MANY = letters(dict.fromkeys("abcdefghijklmnop", 1 / 16), 3)


class Paced(FakePolicy):
    async def _take_time(self) -> None:
        await asyncio.sleep(0.1)


def seen(times: StepTimes, time: StepTime, sequences: Iterable[int]) -> StepTimes:
    for n in sequences:
        times.see(n, time.of(n))
    return times


def test_a_step_s_time_is_found_out_from_steps_of_different_sizes() -> None:
    fit = seen(StepTimes(), SLOW, [*range(1, 60)]).fit
    assert fit is not None
    assert (fit.fixed, fit.each) == pytest.approx((SLOW.fixed, SLOW.each))


def test_nothing_is_known_before_steps_differ() -> None:
    assert StepTimes().fit is None
    assert seen(StepTimes(), SLOW, [32] * 100).fit is None


def test_among_equal_steps_the_pace_is_followed() -> None:
    times = seen(StepTimes(), SLOW, [*range(1, 60)])
    assert times.fit is not None
    fit = seen(times, StepTime(SLOW.fixed * 2, SLOW.each * 2), [40] * 5000).fit
    assert fit is not None
    assert fit.of(40) == pytest.approx(2 * SLOW.of(40), rel=0.01)


def test_steps_that_take_less_time_the_larger_they_are_say_nothing() -> None:
    assert seen(StepTimes(), StepTime(fixed=0.1, each=-0.001), range(1, 60)).fit is None


def test_the_time_in_which_an_engine_idles_is_no_step_s() -> None:
    stats = EngineStats()
    stats.stepped(1, 0.0)
    for n in range(2, 50):
        stats.stepped(n, stats.at + SLOW.of(n))
    stats.stepped(0, stats.at + SLOW.of(1))
    stats.stepped(1, stats.at + 100)
    fit = stats.step_times.fit
    assert fit is not None
    assert fit.of(10) == pytest.approx(SLOW.of(10))
    assert stats.steps == 51


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
            return crowd.share(seconds, 20)

    share = asyncio.run(shared())
    most = max(range(1, 500), key=lambda each: landed(each, searches, seconds, 20))
    assert abs(share - most) <= 1


def test_a_share_is_one_at_least_and_all_while_nothing_is_known() -> None:
    assert Crowd(lambda: SLOW).share(0.01, 1000) == 1
    assert Crowd(lambda: None).share(0.01, 1000) == math.inf


@pytest.mark.parametrize("algorithm", ["mcts", "best_of_n"])
def test_searches_on_a_clock_keep_to_their_share(algorithm: str) -> None:
    async def under_way(budget: BudgetLimits) -> int:
        crowd, policy = Crowd(lambda: StepTime(0.01, 0.01)), Paced(MANY)
        clock = asyncio.get_running_loop().time
        shape = {"algorithm": algorithm, "parallel": 8, "budget": budget, "sampling": Sampling(max_tokens=7)}
        searches = [world(policy=policy, clock=clock, crowd=crowd, seed=i, **shape) for i in range(2)]
        await asyncio.gather(*(search.run() for search in searches))
        return policy.most_running

    # sqrt(2 · 0.01 · 40/7) = 0.338 s a step is best for answers of seven tokens: 32 under way, which is enough for all;
    # for half a second it is 0.038 s, so 2 of them are under way, and one of each search
    assert run(under_way(BudgetLimits(seconds=40.0, simulations=50))) == 16
    assert run(under_way(BudgetLimits(seconds=0.5))) == 2
    assert run(under_way(BudgetLimits(simulations=50))) == 16
