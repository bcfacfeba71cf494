"""A server in miniature: engines under load, nothing else. It prints the engines' pids once they work."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from ramify.engines import EngineConfig, EngineOptions, Engines
from ramify.search.records import Sampling


async def serve(policy: str, value: str) -> None:
    engines = await Engines.start(
        EngineConfig(Path(policy), Path(value), options=EngineOptions(compile=False))
    )
    prompt = engines.tokenizer.encode("3 5 7 8 to 24\n")
    sampling = Sampling(max_tokens=200)
    first = True
    while not engines.dead.is_set():
        await asyncio.gather(
            engines.policy.sample(prompt, sampling, range(8)), engines.scorer.score([prompt] * 8)
        )
        if first:
            print(*engines.pids, flush=True)
            first = False


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
