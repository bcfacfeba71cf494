"""However a search ends, its tree is logged once with its status, before anyone is answered."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fakes import FakePolicy
from ramify.search.tree import Tree
from ramify.service.idempotency import IdempotencyKey
from ramify.service.keys import ANONYMOUS
from ramify.service.search_spec import SearchSpec
from ramify.service.searches import RunningSearch

from .world import ALPHABET, PROMPT, FakeEngines, World, a_world, events, hold, over_network, release, until

pytestmark = pytest.mark.anyio


async def running(world: World) -> Any:
    await until(lambda: world.context.searches.running and world.engines.policy.running)
    return next(iter(world.context.searches.running.values()))


async def the_only_row(world: World) -> Any:
    await until(lambda: not world.context.searches.running)
    (row,) = await world.logged()
    return row


async def test_a_cancelled_search_answers_with_the_best_so_far(world: World) -> None:
    held = world.engines
    asked = asyncio.create_task(world.search(search={"budget": {"simulations": 10_000, "tokens": 200_000}}))
    await until(lambda: held.policy.generated > 50)
    hold(held)
    search = await running(world)
    state = (await world.http.get(f"/v1/search/{search.id}")).json()
    assert (state["status"], state["stop_reason"]) == ("running", None)
    assert state["answer"]["text"]
    cancelled = (await world.http.post(f"/v1/search/{search.id}/cancel")).json()
    answered = await asked
    assert answered.status_code == 200
    assert (cancelled["status"], cancelled["stop_reason"]) == ("cancelled", "client")
    assert answered.json()["answer"] == cancelled["answer"]
    assert held.policy.running == 0
    assert (await the_only_row(world)).status == "cancelled"


async def test_a_search_cancelled_before_any_answer_says_so_with_null(world: World) -> None:
    hold(world.engines)
    asked = asyncio.create_task(world.search())
    search = await running(world)
    await world.http.post(f"/v1/search/{search.id}/cancel")
    reply = (await asked).json()
    assert (reply["status"], reply["answer"], reply["candidates"]) == ("cancelled", None, [])


async def test_the_deadline_answers_with_the_best_so_far(world: World) -> None:
    asked = asyncio.create_task(
        world.search(deadline=0.3, search={"budget": {"simulations": 10_000, "tokens": 200_000}})
    )
    await until(lambda: world.engines.policy.generated > 50)
    hold(world.engines)
    response = await asked
    assert response.status_code == 200
    assert (response.json()["status"], response.json()["stop_reason"]) == ("deadline", "deadline")
    assert response.json()["answer"] is not None
    assert (await the_only_row(world)).status == "deadline"


async def test_504_only_where_the_deadline_came_before_any_answer(world: World) -> None:
    hold(world.engines)
    response = await world.search(deadline=0.05)
    assert response.status_code == 504
    assert response.json()["error"]["code"] == "no_answer"
    assert response.headers["x-should-retry"] == "false"
    assert world.engines.policy.running == 0
    assert (await the_only_row(world)).status == "deadline"


@pytest.mark.parametrize("stream", [False, True])
async def test_27_a_client_that_leaves_frees_engine_work_within_a_second(world: World, stream: bool) -> None:
    hold(world.engines)
    async with over_network(world) as http:
        asked = asyncio.create_task(http.post("/v1/search", json={"prompt": PROMPT, "stream": stream}))
        await running(world)
        began = asyncio.get_running_loop().time()
        asked.cancel()
        await until(lambda: world.engines.policy.running == 0, seconds=1)
        assert asyncio.get_running_loop().time() - began < 1
        row = await the_only_row(world)
    assert row.status == "cancelled"
    tree = (await world.log.get(row.tree_id)).tree()
    assert tree.stop_reason == "disconnect"
    assert tree.usage.completion_tokens > 0, "aborted draws are counted"


async def test_27_a_client_that_leaves_while_it_waits_was_never_searched_for(tmp_path: Path) -> None:
    async with a_world(tmp_path, admission={"searches": 1}) as world, over_network(world) as http:
        hold(world.engines)
        first = asyncio.create_task(http.post("/v1/search", json={"prompt": PROMPT}))
        await running(world)
        second = asyncio.create_task(http.post("/v1/search", json={"prompt": PROMPT}))
        await until(lambda: world.context.searches.admission.waiting)
        second.cancel()
        await until(lambda: not world.context.searches.admission.waiting)
        release(world.engines)
        assert (await first).status_code == 200
        assert len(await world.logged()) == 1


async def test_drain_lets_searches_finish(world: World) -> None:
    hold(world.engines)
    asked = asyncio.create_task(world.search())
    await running(world)
    drained = asyncio.create_task(world.context.searches.drain(5))
    await until(lambda: world.context.searches.draining)
    assert (await world.http.get("/readyz")).status_code == 503
    refused = await world.search()
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0
    release(world.engines)
    assert (await asked).json()["status"] == "complete"
    await drained


async def test_drain_stops_logs_and_answers_what_outlasts_its_grace(world: World) -> None:
    asked = asyncio.create_task(world.search(search={"budget": {"simulations": 10_000, "tokens": 200_000}}))
    await until(lambda: world.engines.policy.generated > 50)
    hold(world.engines)
    await world.context.searches.drain(0.05)
    reply = (await asked).json()
    assert (reply["status"], reply["stop_reason"]) == ("drained", "drain")
    assert reply["answer"] is not None
    assert (await the_only_row(world)).status == "drained"


async def test_a_search_drained_before_any_answer_is_503(world: World) -> None:
    hold(world.engines)
    asked = asyncio.create_task(world.search())
    await running(world)
    await world.context.searches.drain(0)
    response = await asked
    assert response.status_code == 503
    assert "retry-after" in response.headers


@pytest.mark.parametrize(("requests", "status"), [(0, 503), (20, 200)])
async def test_engine_death_ends_searches_as_engine_dead(tmp_path: Path, requests: int, status: int) -> None:
    engines = FakeEngines(policy=FakePolicy(ALPHABET, die_after=requests))
    async with a_world(tmp_path, engines) as world:
        response = await world.search()
        assert response.status_code == status, response.text
        row = await the_only_row(world)
        assert row.status == "engine_dead"
        if status == 200:
            assert response.json()["status"] == "engine_dead"
            assert response.json()["answer"] is not None
        engines.dead.set()
        assert (await world.search()).status_code == 503
        assert (await world.http.get("/readyz")).status_code == 503
        assert (await world.http.get("/livez")).status_code == 200


async def test_an_engine_whose_queue_is_full_is_503(world: World) -> None:
    from ramify.engines import EngineBusy

    async def full(*_: Any) -> Any:
        raise EngineBusy("8192 sequences wait")

    world.engines.policy.sample = full  # type: ignore[method-assign]
    response = await world.search()
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "server_full"
    assert (await the_only_row(world)).status == "failed"


async def test_events_come_in_order_and_end_with_the_answer(world: World) -> None:
    response = await world.search(stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    found = events(response.text)
    names = [name for name, _ in found]
    assert names[0] == "search.started"
    assert names[-1] == "search.completed"
    assert set(names[1:-1]) <= {"search.progress"}
    assert len({data["id"] for _, data in found}) == 1
    assert found[-1][1]["answer"] is not None
    assert (await world.http.get(f"/v1/search/{found[0][1]['id']}")).json()["answer"] == found[-1][1][
        "answer"
    ]


async def test_progress_and_pings_keep_a_silent_search_alive(tmp_path: Path) -> None:
    stream = {"progress_seconds": 0.01, "ping_seconds": 0.02}
    async with a_world(tmp_path, stream=stream) as world, over_network(world) as http:
        body = {
            "prompt": PROMPT,
            "stream": True,
            "search": {"budget": {"simulations": 9000, "tokens": 150_000}},
        }
        async with http.stream("POST", "/v1/search", json=body) as response:
            seen = ""
            async for text in response.aiter_text():
                seen += text
                if "search.progress" in seen and world.engines.policy.gate is None:
                    hold(world.engines)
                if ": ping" in seen:
                    break
        progress = [data for name, data in events(seen.rpartition("\n\n")[0]) if name == "search.progress"]
        assert progress[-1]["tokens"] > 0
        assert progress[-1]["answer"]["text"]
        assert (await the_only_row(world)).status == "cancelled"


async def test_an_error_after_the_stream_began_is_an_event(world: World) -> None:
    hold(world.engines)
    response = await world.search(stream=True, deadline=0.05)
    assert response.status_code == 200
    name, data = events(response.text)[-1]
    assert name == "error"
    assert data["error"]["code"] == "no_answer"


async def test_an_error_before_the_stream_began_is_a_status(world: World) -> None:
    response = await world.search(stream=True, search={"width": 0})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "search.width"


async def test_a_finished_search_is_logged_and_answered_whatever_fails_after_its_end(world: World) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the fake metrics were told to fail")

    hold(world.engines)
    asked = asyncio.create_task(world.search(headers={"Idempotency-Key": "whatever"}))
    search = await running(world)
    world.context.searches.admission.leave(search.ticket)  # giving it back a second time fails
    world.context.metrics.ended = broken  # type: ignore[method-assign]
    release(world.engines)
    assert (await asked).status_code == 200
    assert (await the_only_row(world)).status == "complete"
    assert (await world.search(headers={"Idempotency-Key": "whatever"})).content == (await asked).content


async def test_a_search_whose_answer_cannot_be_kept_is_logged_and_leaves_its_key_free(world: World) -> None:
    def unwritable(_: Tree) -> bytes:
        raise UnicodeError("half a surrogate pair")

    searches = world.context.searches
    for _ in range(2):
        begun = await searches.start(
            SearchSpec(prompt=PROMPT), ANONYMOUS, IdempotencyKey("key", "hash", unwritable)
        )
        assert isinstance(begun, RunningSearch)
        assert (await begun.logged()).status == "complete"
    assert len(await world.logged()) == 2
    assert not searches.running
