"""The first task to end decides, and nothing of the others goes on."""

from __future__ import annotations

import asyncio

import pytest

from ramify.races import all_of, beside, first_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def for_ever() -> asyncio.Task[bool]:
    return asyncio.create_task(asyncio.Event().wait())


async def test_the_block_begins_when_the_first_task_is_done_and_ends_the_others() -> None:
    quick, slow = asyncio.create_task(asyncio.sleep(0, "first")), for_ever()
    async with first_of(quick, slow):
        assert quick.result() == "first"
        assert not slow.done()
    assert slow.cancelled()


async def test_a_race_that_is_cancelled_ends_every_task() -> None:
    tasks = for_ever(), for_ever()

    async def race() -> None:
        async with first_of(*tasks):
            raise AssertionError("nothing was done")

    racing = asyncio.create_task(race())
    await asyncio.sleep(0)
    racing.cancel()
    await asyncio.wait((racing,))
    assert racing.cancelled()
    assert all(task.cancelled() for task in tasks)


async def test_what_a_loser_raises_while_it_ends_is_not_the_winners_fault() -> None:
    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("at the end")

    async with first_of(asyncio.create_task(asyncio.sleep(0)), asyncio.create_task(stubborn())):
        pass


async def test_a_task_beside_a_block_ends_with_it_though_the_block_raises() -> None:
    task = for_ever()
    with pytest.raises(KeyError):
        async with beside(task):
            raise KeyError
    assert task.cancelled()


async def test_all_end_in_order_and_the_first_that_fails_ends_the_others_with_its_own_error() -> None:
    assert await all_of(asyncio.sleep(0.0 if i else 0.01, i) for i in range(3)) == [0, 1, 2]
    ended: list[str] = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("the other")

    async def failing() -> None:
        await asyncio.sleep(0)
        raise KeyError("mine") from ValueError("why")

    with pytest.raises(KeyError, match="mine") as caught:
        await all_of([endless(), failing()])
    assert ended == ["the other"]
    assert isinstance(caught.value.__cause__, ValueError)
