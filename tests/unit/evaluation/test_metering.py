import asyncio
from dataclasses import dataclass

import pytest

from ramify.evaluation.metering import Bill, Meter, MeteredScorer, metered
from ramify.search.protocols import JudgingPolicy, departs

pytestmark = pytest.mark.anyio


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_search_alone_is_charged_the_time_in_which_it_has_work_there():
    clock = Clock()
    bill = Bill(Meter(clock))
    clock.now += 5  # the engine idles
    with bill.charged(4):
        clock.now += 2
    clock.now += 5
    assert bill.seconds == pytest.approx(2)


def test_searches_side_by_side_share_the_time_by_their_sequences():
    clock = Clock()
    meter = Meter(clock)
    one, other = Bill(meter), Bill(meter)
    with one.charged(1):
        clock.now += 1
        with other.charged(3):
            clock.now += 4
        clock.now += 1
    assert one.seconds == pytest.approx(1 + 4 / 4 + 1)
    assert other.seconds == pytest.approx(4 * 3 / 4)


def test_what_all_are_charged_is_the_time_in_which_there_was_work():
    clock = Clock()
    meter = Meter(clock)
    bills = [Bill(meter) for _ in range(3)]
    with bills[0].charged(2):
        clock.now += 1
        with bills[1].charged(5), bills[0].charged(1):
            clock.now += 2
    clock.now += 3
    with bills[2].charged(7):
        clock.now += 4
    assert sum(bill.seconds for bill in bills) == pytest.approx(1 + 2 + 4)


async def test_a_call_that_is_cancelled_is_charged_until_then():
    clock, begun = Clock(), asyncio.Event()
    bill = Bill(Meter(clock))

    class Never:
        async def score(self, sequences):
            begun.set()
            await asyncio.Event().wait()

    call = asyncio.create_task(MeteredScorer(Never(), bill).score([[1]]))
    await begun.wait()
    clock.now += 3
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    clock.now += 9
    assert bill.seconds == pytest.approx(3)
    with bill.charged(1):
        clock.now += 1
    assert bill.seconds == pytest.approx(4)


class Drawing:
    async def sample(self, prefix, sampling, seeds):
        return ["drawn"]

    async def next_tokens(self, prefix, k, temperature):
        return ["token"]


class Judging(Drawing):
    async def write_on(self, prefix, sampling, seeds, *, action, hurdle, length):
        return [action, hurdle, length]


class Departing(Drawing):
    departs = True

    async def sample(self, prefix, sampling, seeds, *, departures=()):
        return [departures]


async def test_a_metered_policy_leaves_out_what_is_known_if_the_policy_does():
    bill = Bill(Meter(Clock()))
    assert not departs(metered(Drawing(), bill))
    departing = metered(Departing(), bill)
    assert departs(departing)
    assert await departing.sample([], None, [1], departures=["d"]) == [["d"]]


async def test_a_metered_policy_judges_if_the_policy_does():
    bill = Bill(Meter(Clock()))
    plain, judging = metered(Drawing(), bill), metered(Judging(), bill)
    assert not isinstance(plain, JudgingPolicy)
    assert isinstance(judging, JudgingPolicy)
    assert await judging.write_on([], None, [1], action="a", hurdle="h", length=2) == ["a", "h", 2]
    assert await judging.sample([], None, [1]) == await plain.sample([], None, [1]) == ["drawn"]
    assert await plain.next_tokens([], 1, 1.0) == ["token"]
