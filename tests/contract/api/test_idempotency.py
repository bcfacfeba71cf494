from __future__ import annotations

import asyncio

import pytest

from .world import PROMPT, World, events, hold, over_network, release, until

pytestmark = pytest.mark.anyio
KEY = {"Idempotency-Key": "run:1:3 5 7 8"}


async def test_the_same_key_replays_the_answer_and_searches_once(world: World) -> None:
    first = await world.search(headers=KEY, include_tree=True)
    second = await world.search(headers=KEY, include_tree=True)
    assert first.content == second.content
    assert len(await world.logged()) == 1


async def test_other_spelling_of_the_same_body_is_the_same_body(world: World) -> None:
    headers = {**KEY, "content-type": "application/json"}
    first = await world.http.post("/v1/search", content='{"prompt":"?\\n","seed":1}', headers=headers)
    second = await world.http.post(
        "/v1/search", content='{ "prompt" : "\\u003f\\n", "seed" : 1 }', headers=headers
    )
    assert first.content == second.content


async def test_another_body_under_the_same_key_is_422(world: World) -> None:
    await world.search(headers=KEY)
    other = await world.search(headers=KEY, seed=4)
    assert other.status_code == 422
    assert other.json()["error"]["code"] == "idempotency_key_reused"


async def test_asking_while_it_runs_is_409_and_says_when_to_ask_again(world: World) -> None:
    hold(world.engines)
    first = asyncio.create_task(world.search(headers=KEY))
    await until(lambda: world.engines.policy.running)
    second = await world.search(headers=KEY)
    assert second.status_code == 409
    assert int(second.headers["retry-after"]) > 0
    release(world.engines)
    assert (await first).status_code == 200
    assert (await world.search(headers=KEY)).content == (await first).content


async def test_keys_of_two_api_keys_are_apart(keyed: World) -> None:
    alice, bob = [await keyed.search(headers={**KEY, **keyed.as_key(name)}) for name in ("alice", "bob")]
    assert alice.json()["id"] != bob.json()["id"]


async def test_a_stream_is_replayed_as_started_and_completed(world: World) -> None:
    first = events((await world.search(headers=KEY, stream=True)).text)
    second = events((await world.search(headers=KEY, stream=True)).text)
    assert [name for name, _ in second] == ["search.started", "search.completed"]
    assert (second[0], second[-1]) == (first[0], first[-1])


async def test_a_refused_request_leaves_its_key_free(world: World) -> None:
    assert (await world.search(headers=KEY, search={"width": 0})).status_code == 400
    assert (await world.search(headers=KEY)).status_code == 200


async def test_a_search_without_an_answer_leaves_its_key_free(world: World) -> None:
    hold(world.engines)
    assert (await world.search(headers=KEY, deadline=0.05)).status_code == 504
    release(world.engines)
    again = await world.search(headers=KEY, deadline=20.0)
    assert again.status_code == 200, again.text


async def test_a_client_that_left_may_ask_again_and_is_searched_for_again(world: World) -> None:
    hold(world.engines)
    async with over_network(world) as http:
        first = asyncio.create_task(http.post("/v1/search", json={"prompt": PROMPT}, headers=KEY))
        await until(lambda: world.engines.policy.running)
        first.cancel()
        await until(lambda: not world.context.searches.running)
        release(world.engines)

        async def again() -> int:
            return (await http.post("/v1/search", json={"prompt": PROMPT}, headers=KEY)).status_code

        while (status := await again()) == 409:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert status == 200
    assert sorted(row.status for row in await world.logged()) == ["cancelled", "complete"]


@pytest.mark.parametrize("key", ["", "x" * 201])
async def test_an_impossible_key_is_400(world: World, key: str) -> None:
    assert (await world.search(headers={"Idempotency-Key": key})).status_code == 400
