"""POST /v1/search/batch: prompts that share a budget, each searched, logged and cancelled like a single one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from .world import KEYS, PROMPT, FakeEngines, World, a_world, events, hold, over_network, release, until

pytestmark = pytest.mark.anyio
SEARCH = {"algorithm": "best_of_n"}
LONG = {"tokens": 100_000, "least_gain": 0.0}
"""A budget that no test waits for."""


async def ask(world: World, count: int = 3, **body: Any) -> httpx.Response:
    headers = body.pop("headers", {})
    given = {"prompts": [{"prompt": PROMPT}] * count, "budget": {"tokens": 300}, "search": SEARCH, **body}
    return await world.http.post("/v1/search/batch", json=given, headers=headers)


async def under_way(world: World, prompts: int) -> list[Any]:
    """The running searches, once each has an answer and nothing more comes."""
    searches = world.context.searches.running
    await until(lambda: len(searches) == prompts and all(s.tree.completions for s in searches.values()))
    hold(world.engines)
    return list(searches.values())


async def test_prompts_share_a_budget_and_are_answered_in_order(world: World) -> None:
    response = await ask(world)
    assert response.status_code == 200, response.text
    reply = response.json()
    assert [one["index"] for one in reply["results"]] == [0, 1, 2]
    assert all(one["answer"]["text"] for one in reply["results"])
    assert reply["usage"]["completion_tokens"] == sum(reply["usage"]["spread"]) <= 300
    assert reply["usage"]["spread"] == [one["usage"]["completion_tokens"] for one in reply["results"]]
    assert response.headers["x-ramify-batch-id"] == reply["id"]
    assert world.context.searches.admission.reserved == 0


async def test_each_search_is_logged_like_a_single_one_and_names_its_batch(world: World) -> None:
    reply = (await ask(world)).json()
    rows = await world.logged()
    assert {row.tree_id for row in rows} == {one["tree"]["id"] for one in reply["results"]}
    for one in reply["results"]:
        tree = (await world.http.get(f"/v1/trees/{one['tree']['id']}")).json()["tree"]
        assert tree["batch"] == reply["id"]
        assert (await world.http.get(f"/v1/search/{one['id']}")).json()["answer"] == one["answer"]


async def test_a_prompt_whose_answer_is_sure_leaves_its_tokens_to_the_others(world: World) -> None:
    prompts = [
        {"prompt": PROMPT, "task": {"name": "exact", "problem": {"answer": answer}}}
        for answer in ("a", "never")
    ]
    world.engines.policy.rule = lambda text: {"": 1.0} if text else {"a": 0.5, "b": 0.25, "c": 0.25}
    search = {"algorithm": "best_of_n", "grader": "verifier", "early_stop": "off"}
    reply = (await ask(world, prompts=prompts, search=search, budget={"tokens": 200})).json()
    easy, hard = reply["results"]
    assert (easy["stop_reason"], easy["answer"]["outcome"]) == ("early", 1.0)
    assert hard["usage"]["completion_tokens"] > easy["usage"]["completion_tokens"]


async def test_the_batchs_task_is_that_of_prompts_that_name_none(world: World) -> None:
    reply = (await ask(world, task={"name": "exact", "problem": {"answer": "z"}}, include_tree=True)).json()
    assert [one["tree_document"]["task"] for one in reply["results"]] == ["exact"] * 3


async def test_a_seed_gives_every_prompt_its_own(world: World) -> None:
    trees = [one["tree_document"] for one in (await ask(world, seed=3, include_tree=True)).json()["results"]]
    again = [one["tree_document"] for one in (await ask(world, seed=3, include_tree=True)).json()["results"]]
    assert [tree["seed"] for tree in trees] == [tree["seed"] for tree in again]
    assert len({tree["seed"] for tree in trees}) == 3


async def test_seconds_end_all_searches(world: World) -> None:
    reply = (await ask(world, budget={"seconds": 0.2, "least_gain": 0.0})).json()
    assert {one["stop_reason"] for one in reply["results"]} == {"budget.seconds"}


async def test_the_stream_names_each_prompt_and_sends_its_answer_once(world: World) -> None:
    response = await ask(world, stream=True, budget={"tokens": 3000})
    told = events(response.text)
    names = [name for name, _ in told]
    assert (names[0], names[-1]) == ("batch.started", "batch.completed")
    assert set(names[1:-1]) <= {"search.progress", "search.completed"}
    completed = [data for name, data in told if name == "search.completed"]
    assert sorted(one["index"] for one in completed) == [0, 1, 2]
    started, ended = told[0][1], told[-1][1]
    for one in completed:
        assert one["id"] == started["searches"][one["index"]]["id"]
        assert one["usage"]["completion_tokens"] == ended["usage"]["spread"][one["index"]]


async def test_the_stream_shows_trees_as_they_grow(tmp_path: Path) -> None:
    async with a_world(tmp_path, stream={"progress_seconds": 0.01}) as world:
        response = await ask(world, stream=True, stream_options={"nodes": True}, budget={"tokens": 30_000})
        progress = [data for name, data in events(response.text) if name == "search.progress"]
    assert {one["index"] for one in progress} == {0, 1, 2}
    assert all(one["new_nodes"] for one in progress)


# -- ends --------------------------------------------------------------------------------------------------------


async def test_one_search_of_a_batch_is_cancelled_by_its_own_id(world: World) -> None:
    asked = asyncio.create_task(ask(world, 2, budget={"tokens": 2000, "least_gain": 0.0}))
    first, _ = await under_way(world, 2)
    cancelled = (await world.http.post(f"/v1/search/{first.id}/cancel")).json()
    assert cancelled["status"] == "cancelled"
    release(world.engines)
    results = (await asked).json()["results"]
    assert [one["status"] for one in results] == ["cancelled", "complete"]
    assert results[1]["stop_reason"] == "budget.shared"


async def test_a_batch_is_cancelled_as_one(world: World) -> None:
    asked = asyncio.create_task(ask(world, budget=LONG))
    await under_way(world, 3)
    (batch,) = world.context.batches.running
    cancelled = await world.http.post(f"/v1/search/batch/{batch}/cancel")
    assert cancelled.status_code == 200, cancelled.text
    assert {one["status"] for one in cancelled.json()["results"]} == {"cancelled"}
    assert [one["answer"] for one in (await asked).json()["results"]] == [
        one["answer"] for one in cancelled.json()["results"]
    ]
    assert {row.status for row in await world.logged()} == {"cancelled"}
    again = await world.http.post(f"/v1/search/batch/{batch}/cancel")
    assert (again.status_code, again.json()["error"]["param"]) == (404, "batch_id")


async def test_nobody_cancels_the_batch_of_another_key(keyed: World) -> None:
    asked = asyncio.create_task(ask(keyed, budget=LONG, headers=keyed.as_key("alice")))
    await under_way(keyed, 3)
    (batch,) = keyed.context.batches.running
    path = f"/v1/search/batch/{batch}/cancel"
    assert (await keyed.http.post(path, headers=keyed.as_key("bob"))).status_code == 404
    assert (await keyed.http.post(path, headers=keyed.as_key("alice"))).status_code == 200
    assert (await asked).status_code == 200
    assert {row.key_id for row in await keyed.logged()} == {"alice"}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_stops_the_whole_batch(world: World, stream: bool) -> None:
    async with over_network(world) as http:
        body = {"prompts": [{"prompt": PROMPT}] * 3, "budget": LONG, "search": SEARCH, "stream": stream}

        async def asking() -> None:
            async with http.stream("POST", "/v1/search/batch", json=body) as response:
                async for _ in response.aiter_bytes():
                    pass

        asked = asyncio.create_task(asking())
        await under_way(world, 3)
        asked.cancel()
        await until(lambda: not world.context.batches.running)
    assert world.engines.policy.running == 0
    assert {row.status for row in await world.logged()} == {"cancelled"}
    assert world.context.searches.admission.reserved == 0


async def test_the_deadline_sends_the_best_so_far_of_all(world: World) -> None:
    reply = (await ask(world, budget=LONG, deadline=0.3)).json()
    assert {one["status"] for one in reply["results"]} == {"deadline"}
    assert all(one["answer"] for one in reply["results"])


async def test_an_engine_that_dies_after_some_answers_leaves_them(world: World) -> None:
    asked = asyncio.create_task(ask(world, budget=LONG))
    await under_way(world, 3)
    world.engines.policy.die_after = 0
    release(world.engines)
    results = (await asked).json()["results"]
    assert {one["status"] for one in results} == {"engine_dead"}
    assert all(one["answer"] and one["error"] for one in results)


async def test_an_engine_that_dies_before_any_answer_is_503(world: World) -> None:
    world.engines.policy.die_after = 0
    response = await ask(world)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "engine_unavailable")
    told = events((await ask(world, stream=True)).text)
    assert [name for name, _ in told if name != "search.progress"] == [
        "batch.started", *["search.completed"] * 3, "error",
    ]  # fmt: skip
    assert len(await world.logged()) == 6


async def test_a_drain_ends_batches_with_what_they_have(world: World) -> None:
    asked = asyncio.create_task(ask(world, budget=LONG))
    await until(lambda: world.context.searches.running)
    await under_way(world, 3)
    await world.context.searches.drain(0)
    assert {one["status"] for one in (await asked).json()["results"]} == {"drained"}
    assert (await ask(world)).status_code == 503


# -- admission and keys ------------------------------------------------------------------------------------------


async def test_a_batch_reserves_its_budget_once(tmp_path: Path) -> None:
    async with a_world(tmp_path, admission={"tokens_in_flight": 1000, "queue": 0}) as world:
        hold(world.engines)
        asked = asyncio.create_task(ask(world, budget={"tokens": 900}))
        await until(lambda: world.engines.policy.running)
        assert world.context.searches.admission.reserved == 900
        refused = await ask(world, 1, budget={"tokens": 200})
        assert refused.status_code in (429, 503)
        release(world.engines)
        assert (await asked).status_code == 200
        assert world.context.searches.admission.reserved == 0


async def test_the_same_idempotency_key_gives_the_same_answers_without_a_search(world: World) -> None:
    headers = {"Idempotency-Key": "once"}
    first, second = [await ask(world, headers=headers) for _ in range(2)]
    assert first.json() == second.json()
    assert first.headers["x-ramify-batch-id"] == second.headers["x-ramify-batch-id"]
    assert len(await world.logged()) == 3
    streamed = await ask(world, headers={"Idempotency-Key": "twice"}, stream=True)
    again = await ask(world, headers={"Idempotency-Key": "twice"}, stream=True)
    assert events(again.text)[-1] == events(streamed.text)[-1]
    assert (await ask(world, 2, headers=headers)).status_code == 422
    deleted = first.json()["results"][0]["tree"]["id"]
    await world.http.delete(f"/v1/trees/{deleted}")
    gone = await ask(world, headers=headers)
    assert (gone.status_code, gone.json()["error"]["param"]) == (404, "Idempotency-Key")


async def test_a_cancelled_batch_frees_its_key(world: World) -> None:
    headers = {"Idempotency-Key": "again"}
    asked = asyncio.create_task(ask(world, budget=LONG, headers=headers))
    await under_way(world, 3)
    assert (await ask(world, budget=LONG, headers=headers)).status_code == 409
    (batch,) = world.context.batches.running
    await world.http.post(f"/v1/search/batch/{batch}/cancel")
    assert (await asked).status_code == 200
    release(world.engines)
    assert (await ask(world, headers=headers)).status_code == 200


async def test_a_key_that_trains_nothing_lets_no_search_of_its_batch_be_learned_from(tmp_path: Path) -> None:
    keys = [{**KEYS[0], "train": False}]
    async with a_world(tmp_path, auth={"keys": keys}) as world:
        reply = await ask(world, include_tree=True, headers=world.as_key("alice"))
        assert {one["tree_document"]["train"] for one in reply.json()["results"]} == {False}


# -- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({"prompts": []}, "prompts", "at least 1"),
        ({"prompts": [{"prompt": PROMPT}] * 65}, "prompts", "has 65 prompts; this server takes at most 64"),
        ({"prompts": [{"prompt": PROMPT}, {}]}, "prompts.1", "give either prompt or messages"),
        ({"prompts": [{"prompt": PROMPT}, {"prompt": PROMPT, "seed": 3}]}, "prompts.1.seed", "unknown"),
        ({"prompts": [{"prompt": PROMPT}, {"prompt": "x" * 100_001}]}, "prompts.1.prompt", "too long"),
        (
            {"prompts": [{"prompt": PROMPT, "task": {"name": "countdown", "problem": {"numbers": 3}}}]},
            "prompts.0.task.problem.numbers",
            "",
        ),
        ({"budget": {}}, "budget", "give tokens, seconds or both"),
        ({"budget": {"tokens": 23}}, "budget.tokens", "3 prompts need 24"),
        ({"budget": {"tokens": 200_001}}, "budget.tokens", "takes at most 200000"),
        ({"budget": {"seconds": 301}}, "budget.seconds", "takes at most 300"),
        ({"budget": {"tokens": 300, "least_gain": 2}}, "budget.least_gain", "1"),
        ({"search": {"budget": {"seconds": 3}}}, "search.budget.seconds", "give budget.seconds"),
        ({"search": {"schedule": "waves"}}, "search.schedule", "continuous"),
        ({"search": {"algorithm": "best_of_n", "kappa": 3}}, "search.kappa", ""),
        ({"parallel": 0}, "parallel", "1"),
        ({"stream_options": {"nodes": True}}, None, "stream_options requires stream"),
        ({"deadline": 301}, "deadline", "takes at most 300"),
        ({"model": "other"}, "model", "no model"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_refusal_names_the_field_and_the_limit(
    world: World, body: dict[str, Any], param: str | None, says: str
) -> None:
    response = await ask(world, **body)
    assert response.status_code in (400, 404), response.text
    error = response.json()["error"]
    assert error["param"] == param
    assert says in error["message"]
    assert await world.logged() == []


async def test_the_route_takes_its_own_methods_only(world: World) -> None:
    refused = await world.http.put("/v1/search/batch")
    assert (refused.status_code, refused.headers["Allow"]) == (405, "POST")


async def test_a_batch_that_cannot_begin_leaves_nothing_reserved(tmp_path: Path) -> None:
    engines = FakeEngines()
    async with a_world(tmp_path, engines, limits={"batch_prompts": 2}) as world:
        assert (await ask(world, 3)).status_code == 400
        assert (await ask(world, 2)).status_code == 200
        assert world.context.searches.admission.reserved == 0
