"""Ask the server to search a round's training problems: each of them at most once, and none left out.

Every search carries the Idempotency-Key `run:round:problem`. A collection that was stopped is run again from its
beginning: what the server has answered already it answers again, without a second search.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ramify.rewards import datasets
from ramify.rewards.verifier import Example
from ramify_client import AsyncClient, RamifyError
from ramify_client.results import SearchResult
from ramify_trainer.config import CollectConfig, LoopConfig, key_in
from ramify_trainer.errors import CollectionFailed

Progress = Callable[[int, int], None]
"""Called with searches done, and of how many."""


@dataclass(frozen=True, slots=True)
class CollectionResult:
    """Numbers of a round's searches."""

    searches: int
    tokens: int
    """Generated."""
    ended: Mapping[str, int]
    """Searches by status."""


def problems_of(config: CollectConfig, seed: int, round_: int) -> list[Example]:
    """Return the problems of a round: the same for the same arguments, others in another round."""
    return (
        datasets.load(config.data, config.problems, seed=seed * 1_000_003 + round_) if config.problems else []
    )


async def collect(
    client: AsyncClient, config: CollectConfig, run: str, round_: int, seed: int, progress: Progress
) -> CollectionResult:
    """Have every problem of the round searched. Raises `CollectionFailed`, the other searches then being stopped."""
    examples = problems_of(config, seed, round_)
    left = iter(enumerate(examples))
    results: list[SearchResult] = []

    async def slot() -> None:
        for i, example in left:
            results.append(await _search(client, config, example, f"{run}:{round_}:{i}", seed + i))
            progress(len(results), len(examples))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(config.concurrency, len(examples))):
                group.create_task(slot())
    except* RamifyError as errors:
        first = errors.exceptions[0]
        raise CollectionFailed(
            f"round {round_}, {len(results)} of {len(examples)} searched: {first}"
        ) from first
    return CollectionResult(
        len(results), sum(r.usage.completion_tokens for r in results), _by_status(results)
    )


async def _search(
    client: AsyncClient, config: CollectConfig, example: Example, key: str, seed: int
) -> SearchResult:
    messages = [{"role": m.role, "content": m.content} for m in example.messages]
    return await client.search(
        None if messages else example.prompt,
        messages=messages or None,
        task={"name": example.task, "problem": dict(example.problem)},
        search={
            "early_stop": "off",
            **config.search,
        },  # there is more to learn from a problem than one right answer
        sampling=dict(config.sampling) or None,
        defaults=False,  # rounds stay comparable whatever their release says
        seed=seed,
        idempotency_key=key,
        timeout=config.timeout,
    )


def _by_status(results: Sequence[SearchResult]) -> dict[str, int]:
    return {
        status: sum(r.status == status for r in results) for status in sorted({r.status for r in results})
    }


def collect_once(config: LoopConfig, round_: int, progress: Progress) -> CollectionResult:
    """Have the problems of a round searched, under the keys that the loop would use. Raises `CollectionFailed`."""
    return asyncio.run(_collect(config, round_, progress))


async def _collect(config: LoopConfig, round_: int, progress: Progress) -> CollectionResult:
    async with AsyncClient(config.server.url, key_in(config.server.key_file), max_retries=100) as client:
        return await collect(client, config.collect, config.name, round_, config.seed, progress)
