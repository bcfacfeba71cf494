"""Ask the server to search a round's training problems: each of them at most once, and none left out.

Every search carries the Idempotency-Key `run:round:problem`; so does a batch of them, with the number of its first
problem. A collection that was stopped is run again from its beginning: what the server has answered already it answers
again, without a second search.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ramify.races import all_of
from ramify.rewards import datasets
from ramify.rewards.verifier import Example
from ramify_client import AsyncClient, RamifyError
from ramify_client.results import SearchResult
from ramify_trainer.config import CollectConfig, LoopConfig, key_in
from ramify_trainer.errors import CollectionFailed
from ramify_trainer.loop.state import STATE, RoundRecord, State
from ramify_trainer.progress import Progress

LEAST_ENTROPY = 1e-6
"""Nats below which an entropy counts as this, so that it can be divided by."""


@dataclass(frozen=True, slots=True)
class CollectionResult:
    """Numbers of a round's searches."""

    searches: int
    tokens: int
    """Generated."""
    ended: Mapping[str, int]
    """Searches by status."""
    trees: Sequence[str]
    """Ids of their trees."""


def problems_of(config: CollectConfig, seed: int, round_: int) -> list[Example]:
    """Return the problems of a round: the same for the same arguments, others in another round."""
    return (
        datasets.load(config.data, config.problems, seed=seed * 1_000_003 + round_) if config.problems else []
    )


def at_temperature(config: CollectConfig, history: Sequence[RoundRecord]) -> CollectConfig:
    """Return the settings of the round that follows `history`, with the temperature that its entropies have led to."""
    follows = config.temperature
    if follows is None:
        return config
    temperature = config.first_temperature
    for record in history:
        entropy = record.training.get("draws/entropy")
        if entropy is not None:
            factor = (follows.entropy / max(entropy, LEAST_ENTROPY)) ** follows.gain
            temperature = min(max(temperature * factor, follows.low), follows.high)
    return config.model_copy(update={"sampling": {**config.sampling, "temperature": round(temperature, 4)}})


async def collect(
    client: AsyncClient, config: CollectConfig, run: str, round_: int, seed: int, progress: Progress
) -> CollectionResult:
    """Have every problem of the round searched. Raises `CollectionFailed`, the other searches then being stopped."""
    examples = problems_of(config, seed, round_)
    left = iter(range(0, len(examples), config.batch))
    results: list[SearchResult] = []

    async def slot() -> None:
        for i in left:
            group = examples[i : i + config.batch]
            results.extend(await _search(client, config, group, f"{run}:{round_}:{i}", seed + i))
            progress(len(results), len(examples))

    try:
        slots = min(math.ceil(config.concurrency / config.batch), len(examples))
        await all_of(slot() for _ in range(slots))
    except RamifyError as error:
        raise CollectionFailed(
            f"round {round_}, {len(results)} of {len(examples)} searched: {error}"
        ) from error
    return CollectionResult(
        len(results),
        sum(r.usage.completion_tokens for r in results),
        _by_status(results),
        [r.tree.id for r in results],
    )


async def _search(
    client: AsyncClient, config: CollectConfig, group: Sequence[Example], key: str, seed: int
) -> list[SearchResult]:
    """Have a few problems searched: each on the budget of the settings, or all of them on the sum of those."""
    search = {
        "early_stop": "off",  # there is more to learn from a problem than one right answer
        **config.search,
    }
    options: dict[str, Any] = {
        "sampling": dict(config.sampling) or None,
        "defaults": False,  # rounds stay comparable whatever their release says
        "seed": seed,
        "idempotency_key": key,
        "timeout": config.timeout,
    }
    asked = [_question(example) for example in group]
    if config.batch == 1:
        return [await client.search(search=search, **asked[0], **options)]
    own = dict(search.pop("budget"))
    shared = {"tokens": own.pop("tokens") * len(group)}
    found = await client.search_batch(asked, shared, search={**search, "budget": own}, **options)
    return found.results


def _question(example: Example) -> dict[str, Any]:
    messages = [message.fields() for message in example.messages]
    said = {"messages": messages} if messages else {"prompt": example.prompt}
    return {**said, "task": {"name": example.task, "problem": dict(example.problem)}}


def _by_status(results: Sequence[SearchResult]) -> dict[str, int]:
    return {
        status: sum(r.status == status for r in results) for status in sorted({r.status for r in results})
    }


def collect_once(config: LoopConfig, round_: int, progress: Progress) -> CollectionResult:
    """Have the problems of a round searched, as the loop would and under its keys. Raises `CollectionFailed`."""
    state = State.load(config.state / STATE)
    history = state.history[: round_ - 1] if state else ()
    settings = config.model_copy(update={"collect": at_temperature(config.collect, history)})
    return asyncio.run(_collect(settings, round_, progress))


async def _collect(config: LoopConfig, round_: int, progress: Progress) -> CollectionResult:
    async with AsyncClient(config.server.url, key_in(config.server.key_file), max_retries=100) as client:
        return await collect(client, config.collect, config.name, round_, config.seed, progress)
