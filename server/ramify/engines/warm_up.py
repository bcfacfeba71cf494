"""The first draws of a policy's engine, before anybody else's.

They have it compile what it compiles late, and they tell how long its steps take. Searches on a clock share the engine
by that (`search.crowd`): without it the first 32 of half a second had 256 draws in flight, of which none landed.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress

from ramify.engines.ports import Engine, SampleParams, SampleRequest, plain_cancellation
from ramify.search.crowd import StepTimes

TOKENS = 16
"""Of each draw: as many steps."""
MANY = 64
"""Draws side by side, held against one alone."""
ROUNDS = 4
"""The quickest counts: a pause of the machine must not pass for the engine's own pace."""
STEPS = 100
"""Steps that each of the two figures counts for, beside those of the draws that follow."""
MOST_SECONDS = 5.0
"""A slow engine is left in the middle: the rounds that it has ended count."""


async def warm_up(engine: Engine, token: int) -> None:
    """Draw from a prompt of one token, alone and side by side, and have the engine's `StepTimes` begin with that."""
    tokens, many = min(TOKENS, engine.max_model_len - 1), min(MANY, engine.launch.options.max_num_seqs)
    draw = SampleRequest([token], SampleParams(max_tokens=tokens, temperature=1.0, ignore_eos=True))
    best, clock = {1: math.inf, many: math.inf}, asyncio.get_running_loop().time
    with suppress(TimeoutError):
        async with asyncio.timeout(MOST_SECONDS):
            for _ in range(ROUNDS):
                for draws in best:
                    began = clock()
                    with plain_cancellation():
                        await engine.generate([draw] * draws)
                    best[draws] = min(best[draws], (clock() - began) / tokens)
    if max(best.values()) < math.inf:
        engine.stats.step_times = StepTimes()
        for _ in range(STEPS):
            for draws, seconds in best.items():
                engine.stats.step_times.see(draws, seconds)
