from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ramify.service.admission import LONGEST_RETRY, UNKNOWN_RETRY, Admission, Ticket
from ramify.service.errors import ServiceError
from ramify.settings import AdmissionSettings

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def refused(code: str, saying: str | None = None) -> Iterator[pytest.ExceptionInfo[ServiceError]]:
    with pytest.raises(ServiceError, match=saying) as told:
        yield told
    assert told.value.code == code


def admission(**settings: object) -> Admission:
    return Admission(AdmissionSettings.model_validate(settings), Clock())


async def waiting(door: Admission, n: int) -> None:
    while door.waiting < n:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def test_reserved_tokens_never_exceed_the_limit_and_come_back() -> None:
    door = admission(tokens_in_flight=100, queue_seconds=0)
    first = await door.enter("a", 60)
    assert door.reserved == 60
    with pytest.raises(ServiceError):
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
    door = Admission(AdmissionSettings(searches=1, queue=1, queue_seconds=0.01), Clock(), reasons.append)
    await door.enter("a", 1)
    first = asyncio.create_task(door.enter("b", 1))
    await waiting(door, 1)
    with refused("server_full"):
        await door.enter("c", 1)
    with refused("server_full"):
        await first
    assert reasons == ["full", "timeout"]


async def test_closing_sends_those_who_wait_away() -> None:
    door = admission(searches=1)
    await door.enter("a", 1)
    late = asyncio.create_task(door.enter("b", 1))
    await waiting(door, 1)
    door.close()
    with refused("server_full", "shutting down"):
        await late
    with refused("server_full", "shutting down"):
        await door.enter("c", 1)


async def test_a_key_over_its_share_is_told_so_and_another_is_not() -> None:
    door = admission(tokens_in_flight=100, queue=0)
    await door.enter("greedy", 90)
    await door.enter("modest", 10)
    with refused("key_over_share"):
        await door.enter("greedy", 10)
    with refused("server_full"):
        await door.enter("modest", 10)


async def test_a_key_has_its_own_limit() -> None:
    door = admission(tokens_in_flight=100, key_tokens_in_flight=50)
    await door.enter("a", 40)
    with refused("key_over_share"):
        await door.enter("a", 20)
    await door.enter("b", 50)


async def test_a_key_limit_counts_what_waits_too_and_holds_when_it_is_let_in() -> None:
    door = admission(tokens_in_flight=100, searches=1, key_tokens_in_flight=30)
    held = await door.enter("greedy", 20)
    late = asyncio.create_task(door.enter("greedy", 10))
    await waiting(door, 1)
    with refused("key_over_share"):
        await door.enter("greedy", 1)
    with refused("key_over_share"):
        door.check("greedy")
    door.leave(held)
    await late
    assert door.keys["greedy"].held == 10


async def test_a_search_larger_than_its_keys_limit_runs_alone() -> None:
    door = admission(key_tokens_in_flight=30)
    assert (await door.enter("a", 500)).tokens == 30
    with refused("key_over_share"):
        await door.enter("a", 500)


async def test_a_greedy_key_does_not_starve_a_polite_one() -> None:
    door = admission(searches=1)
    held = await door.enter("greedy", 10)
    many = [asyncio.create_task(door.enter("greedy", 10)) for _ in range(50)]
    await waiting(door, 50)
    polite = asyncio.create_task(door.enter("polite", 10))
    await waiting(door, 51)
    door.leave(held)
    await polite
    assert door.waiting == 50
    for task in many:
        task.cancel()
    await asyncio.gather(*many, return_exceptions=True)


async def test_shares_are_of_tokens_not_of_requests() -> None:
    door = admission(searches=1)
    held = await door.enter("other", 1)
    large = [asyncio.create_task(door.enter("large", 30)) for _ in range(10)]
    small = [asyncio.create_task(door.enter("small", 10)) for _ in range(30)]
    await waiting(door, 40)
    order = []
    for _ in range(20):
        door.leave(held)
        (held,) = door.running
        order.append(held.key_id)
        await asyncio.sleep(0)
    assert (order.count("large"), order.count("small")) == (5, 15)
    for task in (*large, *small):
        task.cancel()
    await asyncio.gather(*large, *small, return_exceptions=True)


async def test_a_full_queue_gives_a_newcomer_the_place_of_the_key_that_has_most() -> None:
    door = admission(searches=1, queue=3)
    await door.enter("greedy", 10)
    greedy = [asyncio.create_task(door.enter("greedy", 10)) for _ in range(3)]
    await waiting(door, 3)
    with refused("server_full"):  # nobody else wants anything yet
        await door.enter("greedy", 10)
    polite = asyncio.create_task(door.enter("polite", 10))
    with refused("key_over_share"):  # the newest of the key that has most places
        await greedy[-1]
    assert door.waiting == 3
    assert not polite.done()
    with refused("key_over_share"):
        await door.enter("greedy", 10)
    with refused("server_full"):  # by now the places are shared as equally as three can be
        await door.enter("polite", 10)
    door.close()
    await asyncio.gather(polite, *greedy, return_exceptions=True)


async def test_what_would_be_refused_at_once_is_refused_before_any_work() -> None:
    door = admission(searches=1, queue=1)
    await door.enter("a", 10)
    door.check("a")
    late = asyncio.create_task(door.enter("a", 10))
    await waiting(door, 1)
    with refused("server_full"):
        door.check("a")
    late.cancel()
    await asyncio.gather(late, return_exceptions=True)
    door.check("a")


async def test_a_wait_lasts_no_longer_than_its_asker_has_patience() -> None:
    door = admission(searches=1, queue_seconds=60)
    await door.enter("a", 10)
    with refused("server_full"):
        await door.enter("b", 10, patience=0)
    assert not door.waiting


async def test_retry_after_is_what_must_end_over_the_rate_at_which_requests_end() -> None:
    clock = Clock()
    door = Admission(AdmissionSettings(tokens_in_flight=1000, queue=0), clock)
    clock.now = 1000.0  # nothing was asked for until now, which does not count
    assert door.retry_after("a", 2000) == UNKNOWN_RETRY
    for _ in range(100):  # 500 tokens end every 10 s
        ticket = await door.enter("a", 500)
        clock.now += 10
        door.leave(ticket)
        clock.now += 1000  # idle
    await door.enter("a", 500)
    await door.enter("b", 500)
    assert door.retry_after("a", 500) == pytest.approx(10, abs=2)
    assert door.retry_after("a", 1000) == pytest.approx(20, abs=4)
    assert door.retry_after("a", 10**9) == LONGEST_RETRY


async def test_a_key_over_its_limit_waits_for_its_own_requests_to_end() -> None:
    clock = Clock()
    door = Admission(AdmissionSettings(key_tokens_in_flight=100), clock)
    for _ in range(100):
        quick, slow = await door.enter("quick", 100), await door.enter("slow", 100)
        for ticket, ended in ((quick, 1.0), (slow, 3.0)):
            clock.now += ended
            door.leave(ticket)
    await door.enter("slow", 100)
    with refused("key_over_share") as told:
        door.check("slow", 100)
    assert told.value.retry_after == pytest.approx(4, abs=1)


def test_a_search_larger_than_the_server_is_not_refused_for_ever() -> None:
    door = admission(tokens_in_flight=100)
    ticket = asyncio.run(door.enter("a", 5000))
    assert ticket.tokens == 100
    assert isinstance(ticket, Ticket)


async def test_a_key_that_waits_for_a_share_of_its_limit_holds_up_its_own_alone() -> None:
    door = admission(tokens_in_flight=100, key_tokens_in_flight=50)
    door.divide({"*": 20}, {})
    large = asyncio.create_task(door.enter("a", 30))
    await waiting(door, 1)
    small = asyncio.create_task(door.enter("a", 10))
    await waiting(door, 2)
    assert (await door.enter("b", 20)).key_id == "b"
    door.divide({"*": 20, "a": 40}, {})
    await asyncio.gather(large, small)
    assert [(ticket.key_id, ticket.tokens) for ticket in door.running] == [("b", 20), ("a", 30), ("a", 10)]


async def test_a_key_over_its_limit_elsewhere_is_refused_and_one_that_gets_no_share_in_time_too() -> None:
    door = admission(tokens_in_flight=100, key_tokens_in_flight=50, queue_seconds=0)
    door.divide({"*": 20}, {"a": 40})
    with refused("key_over_share") as told:
        await door.enter("a", 11)
    assert told.value.retry_after == UNKNOWN_RETRY
    door.leave(await door.enter("a", 10))
    with refused("key_over_share"):
        await door.enter("b", 21)
    assert (await door.enter("a", 10)).tokens == 10
