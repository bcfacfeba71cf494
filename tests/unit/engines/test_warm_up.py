"""How long an engine's steps take is known once it has drawn alone and side by side, unless it is too slow for that."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from ramify.engines.ports import EngineStats, SampleRequest
from ramify.engines.warm_up import MOST_SECONDS, warm_up
from ramify.search.crowd import StepTime
from ramify.search.protocols import SampleAborted
from virtual_time import run


class Stepping:
    """An engine whose steps take as long as `StepTime` says, but for one pause."""

    def __init__(self, time: StepTime, *, room: int = 32, at_once: int = 256, pause: float = 0.0) -> None:
        self.stats, self.time, self.pause = EngineStats(), time, pause
        self.max_model_len, self.launch = room, SimpleNamespace(options=SimpleNamespace(max_num_seqs=at_once))
        self.drawn: list[int] = []

    async def generate(self, requests: Sequence[SampleRequest]) -> list[Any]:
        self.drawn.append(len(requests))
        assert len(requests[0].prompt) + requests[0].params.max_tokens <= self.max_model_len
        pause, self.pause = self.pause, 0.0
        try:
            await asyncio.sleep(self.time.of(len(requests)) * requests[0].params.max_tokens + pause)
        except asyncio.CancelledError:
            raise SampleAborted(0) from None
        return []


@pytest.mark.parametrize("shape", [{}, {"room": 2}, {"at_once": 8}, {"pause": 0.3}])
def test_the_time_of_a_step_is_told_whatever_the_engine_has_room_for_and_beside_a_pause(
    shape: dict[str, Any],
) -> None:
    engine: Any = Stepping(StepTime(0.002, 0.0001), **shape)
    run(warm_up(engine, 5))
    fit = engine.stats.step_times.fit
    assert (fit.fixed, fit.each) == pytest.approx((0.002, 0.0001))
    assert max(engine.drawn) <= engine.launch.options.max_num_seqs


@pytest.mark.parametrize(("each", "known"), [(0.0001, True), (0.003, True), (10.0, False)])
def test_a_slow_engine_is_left_in_the_middle(each: float, known: bool) -> None:
    async def timed(engine: Any) -> float:
        await warm_up(engine, 5)
        return asyncio.get_running_loop().time()

    engine = Stepping(StepTime(0.002, each))
    assert run(timed(engine)) <= MOST_SECONDS
    assert (engine.stats.step_times.fit is not None) == known
