"""OpenAI's routes with `search`: choices, log-probs, streams, idempotency."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fakes import FakePolicy, letters

from .openai_asks import BOTH, ask, content, frames
from .world import FakeEngines, World, a_world, hold, release, until

pytestmark = pytest.mark.anyio


@BOTH
async def test_with_search_the_choices_are_the_trees_best_answers(world: World, route: str) -> None:
    response = await ask(world, route, n=3, search={"budget": {"simulations": 40}, "train": False}, seed=5)
    reply = response.json()
    (row,) = await world.logged()
    tree = (await world.http.get(f"/v1/trees/{row.tree_id}")).json()["tree"]
    native = await world.search(n=3, search={"budget": {"simulations": 40}}, seed=5)
    assert response.headers["x-should-retry"] == "false"
    assert [content(c) for c in reply["choices"]] == [a["text"] for a in native.json()["candidates"]]
    assert reply["ramify"] == {
        "tree": {"id": row.tree_id, "url": f"/trees/{row.tree_id}"},
        "search_id": row.tree_id.replace("tree_", "srch_"),
        "status": "complete",
        "stop_reason": "budget.simulations",
        "release": "fake",
        "defaults": None,
        "temperature": 1.0,
        "truncated_answers": 0,
        "pruned_branches": 0,
        "by_policy": None,
        "without_effect": [],
    }
    assert reply["usage"]["completion_tokens"] == tree["usage"]["completion_tokens"] > 3 * 7
    assert row.train is False


async def test_max_tokens_and_stop_are_those_of_one_answer(world: World) -> None:
    reply = (await ask(world, search={"budget": {"simulations": 8}}, max_tokens=3, temperature=0.7)).json()
    assert len(content(reply["choices"][0])) <= 3
    assert reply["choices"][0]["finish_reason"] == "length"
    (row,) = await world.logged()
    tree = (await world.http.get(f"/v1/trees/{row.tree_id}")).json()["tree"]
    assert (tree["sampling"]["max_tokens"], tree["sampling"]["temperature"]) == (3, 0.7)


async def test_the_string_that_ended_an_answer_is_not_part_of_it(tmp_path: Path) -> None:
    engines = FakeEngines(policy=FakePolicy(letters({"a;": 0.5, "b;": 0.5}, 9)))
    async with a_world(tmp_path, engines) as world:
        body = {"stop": ";", "logprobs": 0, "search": {"budget": {"simulations": 8}}}
        (choice,) = (await ask(world, **body)).json()["choices"]
        assert choice["text"] in ("a", "b")
        assert choice["finish_reason"] == "stop"
        assert choice["logprobs"]["tokens"] == [choice["text"]]


async def test_log_probs_of_a_searched_answer_are_those_its_tokens_were_drawn_with(world: World) -> None:
    (choice,) = (await ask(world, logprobs=0, search={"budget": {"simulations": 8}})).json()["choices"]
    told = choice["logprobs"]
    assert "".join(told["tokens"]) == choice["text"]
    assert len(told["tokens"]) == 7  # the end token, whose text is empty, is one
    assert told["text_offset"] == [0, 1, 2, 3, 4, 5, 6]
    assert told["token_logprobs"][0] == pytest.approx(-3.258, abs=0.001)
    chat = (await ask(world, "chat", logprobs=True, search={"budget": {"simulations": 8}})).json()
    first = chat["choices"][0]["logprobs"]["content"][0]
    assert first["bytes"] == list(first["token"].encode())


@BOTH
async def test_29_a_streamed_search_sends_comments_then_proper_chunks(tmp_path: Path, route: str) -> None:
    async with a_world(tmp_path, stream={"ping_seconds": 0.01}) as world:
        hold(world.engines)
        asked = asyncio.create_task(
            ask(world, route, stream=True, n=2, search={}, stream_options={"include_usage": True})
        )
        await until(lambda: world.engines.policy.running)
        await asyncio.sleep(0.05)  # longer than a ping: something is sent while nothing happens
        release(world.engines)
        response = await asked
    assert response.headers["x-should-retry"] == "false"
    assert response.text.count(": 0 tokens\n\n") >= 1
    sent = frames(response.text)
    assert all(frame["ramify"]["tree"]["id"].startswith("tree_") for frame in sent)
    choices = [frame["choices"][0] for frame in sent[:-1]]
    if route == "chat":
        assert choices[0]["delta"] == {"role": "assistant", "content": ""}
        assert [c["finish_reason"] for c in choices] == [None, None, "stop"] * 2
    else:
        assert [c["finish_reason"] for c in choices] == [None, "stop"] * 2
    assert [frame["usage"] for frame in sent[:-1]] == [None] * (len(sent) - 1)
    assert (sent[-1]["choices"], sent[-1]["usage"]["prompt_tokens"]) == ([], 2)


async def test_a_streamed_search_that_fails_says_so_in_a_frame(tmp_path: Path) -> None:
    async with a_world(tmp_path, limits={"deadline_seconds": 0.05}) as world:
        hold(world.engines)
        response = await ask(world, stream=True, search={})
        assert frames(response.text) == [
            {"error": {**frames(response.text)[0]["error"], "code": "no_answer", "type": "server_error"}}
        ]


@BOTH
@pytest.mark.parametrize("stream", [False, True])
async def test_the_same_idempotency_key_searches_once(world: World, route: str, stream: bool) -> None:
    headers = {"Idempotency-Key": "k"}
    first = await ask(world, route, headers=headers, search={}, stream=stream)
    second = await ask(world, route, headers=headers, search={}, stream=stream)
    if stream:
        assert frames(first.text) == frames(second.text)
    else:
        assert first.content == second.content
    assert len(await world.logged()) == 1
    other = await ask(world, "completion" if route == "chat" else "chat", headers=headers, search={})
    assert other.status_code == 422


async def test_an_idempotency_key_without_search_is_refused_by_name(world: World) -> None:
    response = await ask(world, headers={"Idempotency-Key": "k"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "Idempotency-Key")


async def test_a_search_cancelled_before_any_answer_is_an_error_since_clients_read_a_choice(
    world: World,
) -> None:
    hold(world.engines)
    asked = asyncio.create_task(ask(world, search={}))
    await until(lambda: world.context.searches.running and world.engines.policy.running)
    (running,) = world.context.searches.running.values()
    await world.http.post(f"/v1/search/{running.id}/cancel")
    response = await asked
    assert (response.status_code, response.headers["x-should-retry"]) == (504, "false")


async def test_keys_need_the_scope_search(keyed: World) -> None:
    assert (await ask(keyed)).status_code == 401
    assert (await ask(keyed, headers=keyed.as_key("trainer"))).status_code == 403
    assert (await ask(keyed, headers=keyed.as_key("alice"))).status_code == 200
