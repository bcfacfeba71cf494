from __future__ import annotations

import asyncio

import pytest

from ramify.service.admission import UNKNOWN_RETRY, Admission, Ticket
from ramify.service.errors import Busy, KeyBusy, ServerBusy
from ramify.settings import Admission as Settings

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def admission(**settings: object) -> Admission:
    return Admission(Settings.model_validate(settings), Clock())


async def waiting(door: Admission, n: int) -> None:
    while len(door.waiting) < n:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def test_reserved_tokens_never_exceed_the_limit_and_come_back() -> None:
    door = admission(tokens_in_flight=100, queue_seconds=0)
    first = await door.enter("a", 60)
    assert door.reserved == 60
    with pytest.raises(Busy):
        await door.enter("b", 41)
    second = await door.enter("b", 40)
    door.leave(first)
    door.leave(second)
    assert door.reserved == 0


async def test_who_came_first_enters_first_even_where_a_smaller_one_would_fit() -> None:
    door = admission(tokens_in_flight=100)
    held = await door.enter("a", 80)
    large = asyncio.create_task(door.enter("b", 90))
    await waiting(door, 1)
    small = asyncio.create_task(door.enter("c", 10))
    await waiting(door, 2)
    assert not small.done()
    door.leave(held)
    await asyncio.gather(large, small)
    assert [ticket.key_id for ticket in door.running] == ["b", "c"]


async def test_one_who_gives_up_waiting_lets_the_next_in() -> None:
    door = admission(tokens_in_flight=100)
    await door.enter("a", 80)
    large = asyncio.create_task(door.enter("b", 90))
    await waiting(door, 1)
    small = asyncio.create_task(door.enter("c", 10))
    await waiting(door, 2)
    large.cancel()
    await small
    assert [ticket.key_id for ticket in door.running] == ["a", "c"]


async def test_one_who_is_let_in_while_giving_up_holds_nothing() -> None:
    door = admission(tokens_in_flight=100)
    held = await door.enter("a", 100)
    late = asyncio.create_task(door.enter("b", 100))
    await waiting(door, 1)
    door.leave(held)
    late.cancel()
    with pytest.raises(asyncio.CancelledError):
        await late
    assert door.reserved == 0
    assert not door.waiting


async def test_one_who_leaves_in_the_turn_in_which_another_ends_harms_neither() -> None:
    door = admission(searches=1)
    held = await door.enter("a", 10)
    late = asyncio.create_task(door.enter("b", 10))
    await waiting(door, 1)
    late.cancel()
    door.leave(held)
    with pytest.raises(asyncio.CancelledError):
        await late
    assert door.reserved == 0
    assert not door.waiting


async def test_the_queue_has_a_length_and_a_time() -> None:
    reasons: list[str] = []
    door = Admission(Settings(searches=1, queue=1, queue_seconds=0.01), Clock(), reasons.append)
    await door.enter("a", 1)
    first = asyncio.create_task(door.enter("b", 1))
    await waiting(door, 1)
    with pytest.raises(ServerBusy):
        await door.enter("c", 1)
    with pytest.raises(ServerBusy):
        await first
    assert reasons == ["full", "timeout"]


async def test_closing_sends_those_who_wait_away() -> None:
    door = admission(searches=1)
    await door.enter("a", 1)
    late = asyncio.create_task(door.enter("b", 1))
    await waiting(door, 1)
    door.close()
    with pytest.raises(ServerBusy, match="shutting down"):
        await late
    with pytest.raises(ServerBusy, match="shutting down"):
        await door.enter("c", 1)


async def test_a_key_over_its_share_is_told_so_and_another_is_not() -> None:
    door = admission(tokens_in_flight=100, queue=0)
    await door.enter("greedy", 90)
    await door.enter("modest", 10)
    with pytest.raises(KeyBusy):
        await door.enter("greedy", 10)
    with pytest.raises(ServerBusy):
        await door.enter("modest", 10)


async def test_a_key_has_its_own_limit() -> None:
    door = admission(tokens_in_flight=100, key_tokens_in_flight=50)
    await door.enter("a", 40)
    with pytest.raises(KeyBusy):
        await door.enter("a", 20)
    await door.enter("b", 50)


async def test_retry_after_is_what_must_be_freed_over_the_rate() -> None:
    clock = Clock()
    door = Admission(Settings(tokens_in_flight=1000, queue=0), clock)
    assert door.retry_after(500) == UNKNOWN_RETRY
    ticket = await door.enter("a", 1000)
    ticket.spent = lambda: 200
    clock.now = 4.0  # 50 tokens a second
    # 500 of the 1,000 reserved must be freed; of 800 still to be generated that is half: 400 tokens at 50 a second
    assert door.rate() == 50
    assert door.retry_after(500) == 8
    assert door.retry_after(1000) == 16
    clock.now = 1e9
    assert door.retry_after(500) == 120


def test_a_search_larger_than_the_server_is_not_refused_for_ever() -> None:
    door = admission(tokens_in_flight=100)
    ticket = asyncio.run(door.enter("a", 5000))
    assert ticket.tokens == 100
    assert isinstance(ticket, Ticket)
