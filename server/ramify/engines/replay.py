"""The engines' own time for recorded requests: no tree, no dependencies, no queue of ours."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any

from ramify.engines.recording import EngineRequest, Replay

if TYPE_CHECKING:
    from ramify.engines.vllm.engine import Backend


async def replay(requests: Sequence[EngineRequest], policy: Backend, value: Backend | None) -> Replay:
    """Send everything at once and wait for all of it.

    A draw of m tokens is sent as "exactly m tokens" (end tokens ignored, no stops), so that the engine does the work
    that it did and can do nothing less. Seeds and log-probabilities are asked for as they were."""
    started = time.perf_counter()
    jobs = [_generate(request, policy) for request in requests if request.kind != "score"]
    judged = [request for request in requests if request.kind == "score"]
    if judged and value is None:
        raise ValueError("scored sequences were recorded, and there is no value model to replay them on")
    jobs += [_score(request, value) for request in judged if value is not None]
    await asyncio.gather(*jobs)
    return Replay(
        seconds=time.perf_counter() - started,
        requests=len(requests),
        generated_tokens=sum(request.tokens for request in requests),
        scored_sequences=sum(sum(request.judges) for request in judged),
    )


async def _generate(request: EngineRequest, policy: Backend) -> None:
    draw = request.draw
    prompt = list(request.prompts[0])
    seeds: Iterable[int | None] = request.seeds or repeat(None, len(request.lengths))

    def again(length: int, seed: int | None) -> tuple[list[int], Any]:
        params = policy.sampling(
            max_tokens=length,
            temperature=draw.temperature,
            top_p=draw.top_p,
            top_k=draw.top_k,
            top=request.k,
            ignore_eos=True,
        )
        return prompt, params if seed is None else policy.with_seed(params, seed)

    await policy.generate(map(again, request.lengths, seeds))


async def _score(request: EngineRequest, value: Backend) -> None:
    await value.classify(zip(request.prompts, (judges > 1 for judges in request.judges), strict=True))
