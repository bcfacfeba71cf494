from __future__ import annotations

import asyncio

import pytest

from ramify.engines import EngineBusy
from ramify.engines.limiter import EngineLimiter


async def turn() -> None:
    """Let every task that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_requests_wait_for_free_slots_and_are_served_in_the_order_in_which_they_came() -> None:
    async def go() -> None:
        slots, order = EngineLimiter(4, 100), list[int]()

        async def take(name: int, units: int) -> None:
            await slots.acquire(units)
            order.append(name)

        assert await slots.acquire(3) == 3
        tasks = [asyncio.create_task(take(name, units)) for name, units in ((1, 2), (2, 1), (3, 4))]
        await turn()
        assert (order, slots.waiting) == ([], 7), "the small request does not overtake"
        slots.release(3)
        await turn()
        assert (order, slots.taken, slots.waiting) == ([1, 2], 3, 4)
        slots.release(3)
        await asyncio.gather(*tasks)
        assert (order, slots.taken) == ([1, 2, 3], 4)

    asyncio.run(go())


def test_a_full_queue_refuses_at_once() -> None:
    async def go() -> None:
        slots = EngineLimiter(1, 2)
        await slots.acquire(1)
        waiting = [asyncio.create_task(slots.acquire(1)) for _ in range(2)]
        await turn()
        with pytest.raises(EngineBusy, match="2 requests wait"):
            await slots.acquire(1)
        for task in waiting:
            task.cancel()
        await turn()
        assert slots.waiting == 0

    asyncio.run(go())


def test_a_request_larger_than_all_slots_takes_them_all() -> None:
    async def go() -> None:
        slots = EngineLimiter(2, 10)
        assert await slots.acquire(5) == 2
        slots.release(2)
        assert slots.taken == 0

    asyncio.run(go())


@pytest.mark.parametrize("same_moment", [False, True])
def test_a_cancelled_wait_gives_its_turn_to_the_next(same_moment: bool) -> None:
    async def go() -> None:
        slots = EngineLimiter(1, 10)
        await slots.acquire(1)
        first, second = (asyncio.create_task(slots.acquire(1)) for _ in range(2))
        await turn()
        if same_moment:
            slots.release(1)  # first's turn has come, and it is cancelled before it runs
            first.cancel()
        else:
            first.cancel()
            slots.release(1)
        assert await second == 1
        assert (slots.taken, slots.waiting) == (1, 0)

    asyncio.run(go())
