"""A round's collection by itself."""

from __future__ import annotations

import asyncio

from ramify_client import AsyncClient
from ramify_trainer.collecting import CollectionResult, Progress, collect
from ramify_trainer.loop.config import LoopConfig, key_in


def collect_once(config: LoopConfig, round_: int, progress: Progress) -> CollectionResult:
    """Have the problems of a round searched, under the keys that the loop would use. Raises `CollectionFailed`."""
    return asyncio.run(_collect(config, round_, progress))


async def _collect(config: LoopConfig, round_: int, progress: Progress) -> CollectionResult:
    async with AsyncClient(config.server.url, key_in(config.server.key_file), max_retries=100) as client:
        return await collect(client, config.collect, config.name, round_, config.seed, progress)
