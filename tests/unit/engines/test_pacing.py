"""Groups of requests: who goes at once, who waits, and for how long."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from ramify.engines.pacing import Pace

INTERVAL = 0.02


async def went(pace: Pace) -> float:
    await pace.turn()
    return asyncio.get_running_loop().time()


def test_one_request_after_a_pause_goes_at_once():
    async def scenario() -> None:
        await asyncio.wait_for(Pace(3600.0).turn(), 5)

    asyncio.run(scenario())


def test_those_that_come_sooner_go_together_an_interval_later():
    async def scenario() -> list[float]:
        pace = Pace(INTERVAL)
        return await asyncio.wait_for(asyncio.gather(*(went(pace) for _ in range(5))), 5)

    first, *rest = asyncio.run(scenario())
    assert min(rest) - first >= INTERVAL * 0.9
    assert max(rest) - min(rest) < INTERVAL / 2


def test_groups_stay_an_interval_apart():
    async def scenario() -> list[float]:
        pace = Pace(INTERVAL)
        times = [await went(pace) for _ in range(4)]
        return [later - sooner for sooner, later in pairwise(times)]

    assert min(asyncio.run(scenario())) >= INTERVAL * 0.9


def test_a_cancelled_request_leaves_the_others_of_its_group():
    async def scenario() -> None:
        pace = Pace(INTERVAL)
        await pace.turn()
        leaving, staying = asyncio.ensure_future(pace.turn()), asyncio.ensure_future(pace.turn())
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait_for(staying, 5)
        assert leaving.cancelled()

    asyncio.run(scenario())
