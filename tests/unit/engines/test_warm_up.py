"""How long an engine's steps take is known once it has drawn alone and side by side, if it is quick enough for that."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from ramify.engines.ports import EngineStats, SampleRequest
from ramify.engines.warm_up import MOST_SECONDS, warm_up
from ramify.search.crowd import StepTime
from ramify.search.protocols import EngineDead, SampleAborted
from virtual_time import run


class Stepping:
    """An engine whose steps take as long as `StepTime` says; the first call has `first` seconds more, and one step of
    another `pause`."""

    def __init__(
        self, time: StepTime, *, room: int = 32, at_once: int = 256, first: float = 0.0, pause: float = 0.0
    ) -> None:
        self.stats, self.time, self.pauses = EngineStats(), time, {0: first, 40: pause}
        self.max_model_len, self.launch = room, SimpleNamespace(options=SimpleNamespace(max_num_seqs=at_once))
        self.drawn: list[int] = []
        self.adapters = set[str | None]()

    async def generate(self, requests: Sequence[SampleRequest]) -> list[Any]:
        self.drawn.append(len(requests))
        self.adapters |= {request.adapter for request in requests}
        tokens = requests[0].params.max_tokens
        assert len(requests[0].prompt) + tokens <= self.max_model_len
        try:
            for left in reversed(range(tokens)):
                await asyncio.sleep(self.time.of(len(requests)) + self.pauses.pop(self.stats.steps, 0.0))
                self.stats.stepped(len(requests) if left else 0, asyncio.get_running_loop().time())
        except asyncio.CancelledError:
            raise SampleAborted(0) from None
        return []


@pytest.mark.parametrize("beside", [{}, {"at_once": 8}, {"first": 3.0}, {"pause": 0.3}])
def test_the_time_of_a_step_is_told_whatever_the_engine_compiles_at_first_and_beside_a_pause(
    beside: dict[str, Any],
) -> None:
    engine: Any = Stepping(StepTime(0.002, 0.0001), **beside)
    run(warm_up(engine, 5, "mine"))
    fit = engine.stats.step_times.fit
    assert (fit.fixed, fit.each) == pytest.approx((0.002, 0.0001))
    assert max(engine.drawn) <= engine.launch.options.max_num_seqs
    assert engine.adapters == {"mine"}


@pytest.mark.parametrize("cramped", [{"at_once": 1}, {"room": 2}])
def test_an_engine_that_has_no_room_for_two_lengths_of_steps_says_nothing_of_them(
    cramped: dict[str, Any],
) -> None:
    engine: Any = Stepping(StepTime(0.002, 0.0001), **cramped)
    run(warm_up(engine, 5, None))
    assert engine.stats.step_times.fit is None


def test_a_slow_engine_is_left_in_the_middle() -> None:
    async def timed(engine: Any) -> float:
        await warm_up(engine, 5, None)
        return asyncio.get_running_loop().time()

    assert run(timed(Stepping(StepTime(0.002, 0.1)))) == pytest.approx(MOST_SECONDS)


def test_whoever_gives_a_start_up_is_not_kept_waiting() -> None:
    async def given_up() -> None:
        task = asyncio.create_task(warm_up(engine, 5, None))
        await asyncio.sleep(0.01)
        task.cancel()
        await task

    engine: Any = Stepping(StepTime(0.002, 0.0001))
    with pytest.raises(asyncio.CancelledError):
        run(given_up())


def test_a_death_is_raised() -> None:
    async def dies(requests: Sequence[SampleRequest]) -> list[Any]:
        raise EngineDead("gone")

    engine: Any = Stepping(StepTime(0.002, 0.0001))
    engine.generate = dies
    with pytest.raises(EngineDead):
        run(warm_up(engine, 5, None))
