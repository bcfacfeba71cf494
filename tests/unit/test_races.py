"""The first task to end decides, and nothing of the others goes on."""

from __future__ import annotations

import asyncio

import pytest

from ramify.races import beside, first_of

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
