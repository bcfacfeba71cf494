"""Accuracy with search on held-out problems, asked of the server. What it searches is not to be trained on."""

from __future__ import annotations

import asyncio

from ramify.rewards import datasets, registry
from ramify.rewards.examples import Example
from ramify.search.protocols import GradingFailed
from ramify_client import AsyncClient
from ramify_trainer.compare.config import SearchedConfig

__all__ = ["searched"]

SECONDS = 600.0
"""That one search may wait and take."""


async def searched(client: AsyncClient, config: SearchedConfig, seed: int) -> float:
    """The share of problems whose given answer is right, [0, 1]. Raises `ramify_client.RamifyError`."""
    examples = datasets.load(config.data, config.problems, seed=seed)
    left = iter(enumerate(examples))
    right: list[bool] = []

    async def slot() -> None:
        for i, example in left:
            right.append(await _is_right(client, config, example, seed + i))

    async with asyncio.TaskGroup() as group:
        for _ in range(min(config.concurrency, len(examples))):
            group.create_task(slot())
    return sum(right) / len(right)


async def _is_right(client: AsyncClient, config: SearchedConfig, example: Example, seed: int) -> bool:
    """An answer on which the verifier itself fails counts as wrong."""
    messages = [{"role": m.role, "content": m.content} for m in example.messages]
    found = await client.search(
        None if messages else example.prompt,
        messages=messages or None,
        task={"name": example.task, "problem": dict(example.problem)},
        search=dict(config.search),
        seed=seed,
        train=False,
        timeout=SECONDS,
    )
    if found.answer is None:
        return False
    try:
        verdict = await registry.task(example.task, example.problem).grade(found.answer.text)
    except GradingFailed:
        return False
    return verdict.outcome >= 1.0
