"""The engine calls of searches, and the engines' own time for the same work: no tree, no dependencies, no queue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from ramify.engines import Engines, SampleRequest
from ramify.engines.ports import Recording


@contextmanager
def recorded(engines: Engines) -> Iterator[Recording]:
    """Record what the engines do for the length of a `with`."""
    recording = Recording()
    try:
        for engine in engines.by_role.values():
            engine.recording = recording
        yield recording
    finally:
        for engine in engines.by_role.values():
            engine.recording = None


async def replay(recording: Recording, engines: Engines) -> float:
    """Send every recorded call at once, wait for all of it, and return the seconds that it took.

    A draw of m tokens is sent as "exactly m tokens" (end tokens ignored, no stops, no hurdle), so that the engine does
    the work that it did and can do nothing less. Seeds and log-probabilities are asked for as they were."""
    policy, value = engines.by_role["policy"], engines.by_role.get("value")
    if recording.judgements and value is None:
        raise ValueError("judgements were recorded, and there is no value model to replay them on")
    started = time.perf_counter()
    drawing = (policy.generate(list(map(_exactly, *call))) for call in recording.samples)
    judging = (value.classify(call) for call in recording.judgements if value is not None)
    await asyncio.gather(*drawing, *judging)
    return time.perf_counter() - started


def _exactly(request: SampleRequest, length: int) -> SampleRequest:
    params = replace(request.params, max_tokens=length, stop=(), stop_tokens=(), ignore_eos=True)
    return replace(request, params=params, watch=None)


def steps_of(engines: Engines) -> Mapping[str, int]:
    """Steps that each engine has taken since its start, by role."""
    return {role: engine.stats.steps for role, engine in engines.by_role.items()}
