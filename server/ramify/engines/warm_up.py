"""The first draws of a policy's engine, before anybody else's.

They trigger what the engine compiles on first use, and tell how long its steps take. Searches on a clock share the
engine by that (`search.crowd`): before, the first 32 searches of half a second had 256 draws in flight, of which none
landed.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress
from itertools import cycle, islice
from statistics import median

from ramify.engines.ports import Engine, SampleParams, SampleRequest, plain_cancellation
from ramify.search.crowd import StepTimes

TOKENS = 16
"""Tokens of each draw, which is as many steps."""
MANY = 64
"""Draws side by side, held against one alone."""
ROUNDS = 2
"""Rounds that count. One before them, in which the engine compiles, does not."""
STEPS = 200
"""Steps as which the noted ones are entered, one after another."""
MOST_SECONDS = 5.0
"""A slow engine is left in the middle."""


async def warm_up(engine: Engine, token: int, adapter: str | None) -> None:
    """Draw from a prompt of one token, alone and side by side, and have the engine's `StepTimes` begin with the median
    times of those steps. That of an engine too slow for it begins with all that it noted.

    adapter: the one that searches draw with. Raises what `Engine.generate` raises."""
    tokens, many = min(TOKENS, engine.max_model_len - 1), min(MANY, engine.launch.options.max_num_seqs)
    params = SampleParams(max_tokens=tokens, temperature=1.0, ignore_eos=True)
    draw = SampleRequest([token], params, adapter=adapter)
    with suppress(TimeoutError):
        async with asyncio.timeout(MOST_SECONDS):
            await _round(engine, draw, many)
            noted = engine.stats.step_times = _Noted()
            for _ in range(ROUNDS):
                await _round(engine, draw, many)
            engine.stats.step_times = noted.smoothed()


async def _round(engine: Engine, draw: SampleRequest, many: int) -> None:
    for draws in (1, many):
        with plain_cancellation():
            await engine.generate([draw] * draws)


class _Noted(StepTimes):
    """Keeps the times of steps by their sequences, beside the fit."""

    def __init__(self) -> None:
        super().__init__()
        self._seconds = defaultdict[int, list[float]](list)

    def see(self, sequences: int, seconds: float) -> None:
        super().see(sequences, seconds)
        self._seconds[sequences].append(seconds)

    def smoothed(self) -> StepTimes:
        """Return a fit that begins with the median time of a step for each number of sequences: a pause of the machine
        must not pass for the engine's own pace."""
        times = StepTimes()
        steps = [(n, median(several)) for n, several in self._seconds.items() for _ in several]
        for step in islice(cycle(steps), STEPS):
            times.see(*step)
        return times
