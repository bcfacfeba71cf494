"""A server that may not answer any more, as a replica whose lease has run out: nothing of what ran is sent."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import httpx
import pytest

from ramify.search.run import Search

from .world import PROMPT, World, events, hold, release, until

pytestmark = pytest.mark.anyio


@pytest.fixture
def ends_late(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every search ends when its server may not answer any more, and no alarm has rung before."""
    run = Search.run

    async def late(self: Search) -> None:
        await run(self)
        world.context.searches.admission.standing.answers_until = 0.0

    monkeypatch.setattr(Search, "run", late)


async def ask_batch(world: World, **body: Any) -> httpx.Response:
    given = {"prompts": [{"prompt": PROMPT}], "budget": {"tokens": 100}, **body}
    return await world.http.post("/v1/search/batch", json=given, headers={"Idempotency-Key": "one"})


async def test_a_streamed_batch_is_not_answered(world: World, ends_late: None) -> None:
    told = events((await ask_batch(world, stream=True)).text)
    assert "search.completed" not in [name for name, _ in told]
    assert (told[-1][0], told[-1][1]["error"]["code"]) == ("error", "not_ready")
    assert len(await world.logged()) == 1


async def test_the_answer_of_a_batch_is_not_kept_for_a_repeated_request(
    world: World, ends_late: None
) -> None:
    for attempt in (1, 2):
        reply = await ask_batch(world)
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "not_ready")
        assert len(await world.logged()) == attempt
        world.context.searches.admission.standing.answers_until = math.inf


async def test_a_running_search_is_not_shown_even_once_its_server_may_answer_others_again(
    world: World,
) -> None:
    hold(world.engines)
    asked = asyncio.create_task(world.search())
    await until(lambda: world.engines.policy.running)
    (running,) = world.context.searches.running.values()
    standing = world.context.searches.admission.standing

    async def shown() -> int:
        return (await world.http.get(f"/v1/search/{running.id}")).status_code

    assert await shown() == 200
    standing.answers_until = 0.0
    assert await shown() == 503
    running.lapsed, standing.answers_until = standing.lapsed(), math.inf
    assert await shown() == 503
    release(world.engines)
    assert (await asked).status_code == 503


async def test_a_stream_tells_no_progress_and_ends_with_the_reason(world: World) -> None:
    hold(world.engines)
    asked = asyncio.create_task(world.search(stream=True))
    await until(lambda: world.engines.policy.running)
    world.context.searches.admission.standing.answers_until = 0.0
    release(world.engines)
    told = events((await asked).text)
    assert [name for name, _ in told if name != "error"] == ["search.started"]
    assert told[-1][1]["error"]["code"] == "not_ready"
