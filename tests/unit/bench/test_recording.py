from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace

from ramify.bench.recording import replay
from ramify.engines import RawSample, SampleParams, SampleRequest
from ramify.engines.ports import Recording, Watch
from ramify.search.records import Action, Hurdle


class Asked:
    """An engine that keeps what it is asked."""

    def __init__(self) -> None:
        self.requests: list[SampleRequest] = []

    async def generate(self, requests: Sequence[SampleRequest]) -> list[RawSample]:
        self.requests += requests
        return []


def test_a_draw_is_replayed_with_its_length_and_nothing_that_would_end_it_sooner() -> None:
    params = SampleParams(max_tokens=64, temperature=0.8, stop=("b",), stop_tokens=(4,))
    watch = Watch(Hurdle(0.1, 20.0), Action(), 0, (1.0, 0.0))
    recording, engine = Recording([([SampleRequest([1, 2], params, 7, watch)], [3])]), Asked()
    asyncio.run(replay(recording, SimpleNamespace(by_role={"policy": engine})))  # type: ignore[arg-type]
    exactly = SampleParams(max_tokens=3, temperature=0.8, ignore_eos=True)
    assert engine.requests == [SampleRequest([1, 2], exactly, 7)]
