"""Answers of a model that is not served, by an engine in a process of its own: `python -m ramify.engines.offline`.

The trainer starts one to measure a candidate, without importing vLLM or this package. The process reads one job as JSON
from standard input (`OfflineJob`), draws, ends its engine, and ends. On standard output it writes an event a line:

    {"starting": "loading weights"}                        while the engine starts
    {"done": 12, "total": 200, "steps": 340}               every second: prompts, and steps of the engine
    {"answers": [[[5, 6, 2], ...], ...]}                   last: token ids by prompt and draw
    {"error": "..."}                                       or why there are none, with exit status 1

What vLLM and torch print goes to standard error.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ramify.engine_options import EngineOptions
from ramify.engines.config import EngineConfig
from ramify.engines.engines import Engines
from ramify.engines.errors import EngineError, RequestRefused
from ramify.engines.ports import Engine, SampleParams, SampleRequest
from ramify.races import all_of, beside
from ramify.search.protocols import EngineDead

ADAPTER = "candidate"
"""Name of the job's adapter in the engine."""
TELL_EVERY = 1.0
"""Seconds between two events."""
Tell = Callable[..., None]
"""Called with the fields of an event."""


class OfflineDraw(BaseModel):
    """Draws that continue one prompt."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: tuple[int, ...] = Field(min_length=1)
    """Token ids."""
    seeds: tuple[int, ...]
    """One draw at temperature 1 for each."""


class OfflineJob(BaseModel):
    """Everything that the process is asked: for each prompt the greedy answer, then an answer for each seed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    policy: Path
    """Hugging Face directory."""
    adapter: Path | None = None
    """LoRA adapter on the policy to draw with; `options` must have room for it."""
    draws: tuple[OfflineDraw, ...] = Field(min_length=1)
    max_tokens: int = Field(ge=1)
    """Longest answer; fewer if the model's context ends before."""
    ends: tuple[int, ...]
    """Tokens that end an answer."""
    options: EngineOptions = EngineOptions()


async def answer(job: OfflineJob, tell: Tell) -> list[list[list[int]]]:
    """Start an engine, and return the answers by prompt, the greedy one first. Raises `EngineError`, `EngineDead`."""
    config = EngineConfig(job.policy, options=job.options)
    async with await Engines.start(config, lambda phase: tell(starting=phase)) as engines:
        engine = engines.by_role["policy"]
        if job.adapter is not None:
            await engine.load_adapter(ADAPTER, job.adapter)
        return await answer_with(engine, job, tell)


async def answer_with(engine: Engine, job: OfflineJob, tell: Tell) -> list[list[list[int]]]:
    """Do the same with an engine that runs already."""
    done = 0

    async def one(draw: OfflineDraw) -> list[list[int]]:
        nonlocal done
        drawn = await engine.generate(_requests(job, draw, engine))
        done += 1
        return [sample.token_ids for sample in drawn]

    async def tell_progress() -> None:
        while True:
            tell(done=done, total=len(job.draws), steps=engine.stats.steps)
            await asyncio.sleep(TELL_EVERY)

    async with beside(asyncio.create_task(tell_progress())):
        return await all_of(map(one, job.draws))


def _requests(job: OfflineJob, draw: OfflineDraw, engine: Engine) -> list[SampleRequest]:
    room = engine.max_model_len - len(draw.prompt)
    if room < 1:
        raise RequestRefused(
            f"a prompt of {len(draw.prompt)} tokens leaves no room for an answer: {job.policy} has a context of "
            f"{engine.max_model_len}"
        )
    greedy = SampleParams(min(job.max_tokens, room), temperature=0.0, stop_tokens=job.ends)
    sampled = replace(greedy, temperature=1.0)
    adapter = None if job.adapter is None else ADAPTER
    return [
        SampleRequest(draw.prompt, greedy, adapter=adapter),
        *(SampleRequest(draw.prompt, sampled, seed, adapter=adapter) for seed in draw.seeds),
    ]


def main() -> int:
    """Do the job on standard input; return the exit status."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as events:
        os.dup2(2, 1)  # engines print too

        def tell(**event: object) -> None:
            _write(events, event)

        try:
            job = OfflineJob.model_validate_json(sys.stdin.buffer.read())
            tell(answers=asyncio.run(answer(job, tell)))
        except (EngineError, EngineDead, ValidationError) as error:
            tell(error=str(error))
            return 1
    return 0


def _write(events: TextIO, event: object) -> None:
    events.write(f"{json.dumps(event)}\n")
    events.flush()


if __name__ == "__main__":
    sys.exit(main())
