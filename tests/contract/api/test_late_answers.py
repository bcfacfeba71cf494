"""Answers over which a computer algebra system hangs make nobody late (NVIDIA-NeMo/Gym#1354, volcengine/verl#5839)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fakes import FakePolicy, letters
from ramify.rewards.grading import close_pools

from .world import FakeEngines, World, a_world, until

pytestmark = pytest.mark.anyio
TOWERS = {"^".join("9" * n): 1 / 14 for n in range(4, 18)}
ON_TIME = 60.0
"""Seconds after which an end is late: more than a busy machine needs. Grouping them all takes an hour."""


@pytest.fixture
async def towers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr("ramify.rewards.verifier.Verifier.final_seconds", 3600.0)
    engines = FakeEngines(policy=FakePolicy(letters(TOWERS, 1)), max_model_len=512)
    async with a_world(tmp_path, engines) as world:
        yield world
    await close_pools()


async def ask(world: World, seconds: float | None = None, **body: Any) -> dict[str, Any]:
    budget = {"simulations": 30, **({"seconds": seconds} if seconds else {})}
    search = {"algorithm": "best_of_n", "budget": budget}  # no tree could be exhausted before 30 draws
    task = {"name": "math", "problem": {"answer": "42"}}
    answer = await world.search(
        task=task, search=search, sampling={"max_tokens": 60}, include_tree=True, **body
    )
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def drawn(world: World) -> Any:
    """The search, once it has drawn all it will draw."""
    await until(
        lambda: [r for r in world.context.searches.running.values() if r.progress().simulations == 30]
    )
    return next(iter(world.context.searches.running.values()))


@pytest.mark.parametrize("end", ["deadline", "seconds", "cancel", "drain"])
async def test_answers_over_which_the_verifier_hangs_delay_no_end(towers: World, end: str) -> None:
    asked = asyncio.create_task(ask(towers, **({end: 1.0} if end in ("deadline", "seconds") else {})))
    async with asyncio.timeout(ON_TIME):
        if end == "cancel":
            await towers.http.post(f"/v1/search/{(await drawn(towers)).id}/cancel")
        elif end == "drain":
            await drawn(towers)
            await towers.context.searches.drain(0)
        reply = await asked
    tree = reply["tree_document"]
    assert tree["ungrouped"] > 0
    spelt = reply["answer"]["final"].translate({ord("{"): None, ord("}"): None})
    assert spelt in TOWERS, "it votes by its text, or is the first one, which is compared with none"
