"""OpenAI's routes: what is asked of the policy alone and of a search, what is refused, and what comes back."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from fakes import FakePolicy, encode, letters
from ramify.engines.errors import EngineBusy, EngineError, RequestRefused
from ramify.search.protocols import EngineDead

from .world import PROMPT, FakeEngines, World, a_world, hold, over_network, release, until

pytestmark = pytest.mark.anyio
CHAT = [{"role": "user", "content": PROMPT}]
ROUTES = {"completion": "/v1/completions", "chat": "/v1/chat/completions"}
BOTH = pytest.mark.parametrize("route", ROUTES)


async def ask(world: World, route: str = "completion", **body: Any) -> httpx.Response:
    headers = body.pop("headers", {})
    prompt = {"messages": CHAT} if route == "chat" else {"prompt": PROMPT}
    return await world.http.post(ROUTES[route], json={**prompt, **body}, headers=headers)


def frames(text: str) -> list[dict[str, Any]]:
    """Every data frame but the last, which says that it is the last; comments are left out."""
    data = [line.removeprefix("data: ") for line in text.splitlines() if line and not line.startswith(":")]
    assert data.pop() == "[DONE]"
    return [json.loads(line) for line in data]


def content(choice: dict[str, Any]) -> str:
    text: str = choice["text"] if "text" in choice else choice.get("delta", choice.get("message"))["content"]
    return text


# -- the policy alone --------------------------------------------------------------------------------------------


@BOTH
async def test_without_search_the_policy_answers_and_nothing_is_logged(world: World, route: str) -> None:
    reply = (await ask(world, route, n=2, max_tokens=8, seed=3)).json()
    assert [choice["index"] for choice in reply["choices"]] == [0, 1]
    assert all(len(content(choice)) == 6 for choice in reply["choices"])
    assert {choice["finish_reason"] for choice in reply["choices"]} == {"stop"}
    assert reply["usage"] == {"prompt_tokens": 2, "completion_tokens": 14, "total_tokens": 16}
    assert (reply["model"], reply["system_fingerprint"]) == ("letters", "fake")
    assert "ramify" not in reply
    assert await world.logged() == []


@BOTH
async def test_chunks_come_as_they_are_written_and_usage_only_where_asked_for(
    world: World, route: str
) -> None:
    sent = frames((await ask(world, route, stream=True, max_tokens=8)).text)
    assert [content(frame["choices"][0]) for frame in sent if frame["choices"]][-1].endswith("\n")
    assert len({(frame["id"], frame["created"], frame["object"]) for frame in sent}) == 1
    assert [frame["choices"][0]["finish_reason"] for frame in sent] == [None, None, "stop"]
    assert all("usage" not in frame for frame in sent)
    counted = frames(
        (await ask(world, route, stream=True, stream_options={"include_usage": True}, max_tokens=8)).text
    )
    assert [frame["usage"] for frame in counted[:-1]] == [None] * 3
    assert (counted[-1]["choices"], counted[-1]["usage"]["total_tokens"]) == ([], 9)


async def test_26_every_sampling_field_reaches_the_engine(world: World) -> None:
    fields: dict[str, Any] = {
        "temperature": 0.5,
        "top_p": 0.9,
        "frequency_penalty": 1,
        "presence_penalty": -1,
        "logit_bias": {"97": 5},
        "seed": -1,
        "stop": ["x", "y"],
        "logprobs": 2,
        "top_k": 3,
        "min_p": 0.1,
        "repetition_penalty": 1.5,
        "min_tokens": 1,
        "stop_token_ids": [98],
        "include_stop_str_in_output": True,
        "ignore_eos": False,
        "skip_special_tokens": False,
        "echo": True,
        "n": 2,
        "max_tokens": 7,
    }
    await ask(world, user="me", **fields)
    (body,) = world.engines.plain.bodies
    assert {name: body[name] for name in fields} == {**fields, "seed": (1 << 62) - 1}
    assert set(body) == {*fields, "prompt"}


async def test_prompts_may_be_many_and_may_be_token_ids(world: World) -> None:
    two = (await ask(world, prompt=[PROMPT, PROMPT], n=2, max_tokens=8)).json()
    assert [choice["index"] for choice in two["choices"]] == [0, 1, 2, 3]
    tokens = (await ask(world, prompt=list(encode(PROMPT)), max_tokens=8)).json()
    assert tokens["usage"]["prompt_tokens"] == 2
    batch = (await ask(world, prompt=[list(encode(PROMPT))] * 2, max_tokens=8)).json()
    assert len(batch["choices"]) == 2
    assert all(body["prompt"][0] == list(encode(PROMPT)) for body in world.engines.plain.bodies)


async def test_what_no_cap_is_given_for_is_16_in_a_completion_and_the_models_room_in_a_chat(
    world: World,
) -> None:
    await ask(world)
    await ask(world, "chat")
    plain, chat = world.engines.plain.bodies
    assert (plain["max_tokens"], chat["max_completion_tokens"]) == (16, 510)


async def test_parts_of_text_are_joined_by_line_breaks(world: World) -> None:
    parts = [{"type": "text", "text": "?"}, {"type": "text", "text": ""}]
    await ask(world, "chat", messages=[{"role": "user", "content": parts}], max_tokens=4)
    assert world.engines.plain.bodies[0]["messages"] == [{"role": "user", "content": "?\n"}]


# -- refusals ----------------------------------------------------------------------------------------------------

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("completion", {"n": 129}, "n"),
    ("completion", {"n": 2, "temperature": 0}, "n"),
    ("completion", {"best_of": 3}, "best_of"),
    ("completion", {"suffix": "x"}, "suffix"),
    ("completion", {"logprobs": 6}, "logprobs"),
    ("completion", {"max_tokens": 0}, "max_tokens"),
    ("completion", {"max_tokens": 511}, "max_tokens"),
    ("completion", {"max_tokens": 100, "n": 128, "prompt": [PROMPT] * 20}, "max_tokens"),
    ("completion", {"prompt": [256]}, "prompt"),
    ("completion", {"prompt": ""}, "prompt"),
    ("completion", {"prompt": "?" * 512}, "prompt"),
    ("completion", {"logit_bias": {"256": 1}}, "logit_bias"),
    ("completion", {"logit_bias": {"97": 101}}, "logit_bias.97"),
    ("completion", {"stop_token_ids": [256]}, "stop_token_ids"),
    ("completion", {"stop": ["a"] * 5}, "stop"),
    ("completion", {"stream_options": {"include_usage": True}}, "stream_options"),
    ("completion", {"temprature": 1}, "temprature"),
    ("completion", {"metadata": {"a": "b"}}, "metadata"),
    ("chat", {"tools": [{"type": "function"}]}, "tools"),
    ("chat", {"response_format": {"type": "json_object"}}, "response_format.type"),
    ("chat", {"top_logprobs": 2}, "top_logprobs"),
    ("chat", {"max_tokens": 2, "max_completion_tokens": 3}, "max_tokens"),
    ("chat", {"max_completion_tokens": 511}, "max_completion_tokens"),
    ("chat", {"reasoning_effort": "low"}, "reasoning_effort"),
    ("chat", {"messages": []}, "messages"),
    ("chat", {"messages": [{"role": "user", "content": "?", "name": "me"}]}, "messages.0.name"),
    ("chat", {"store": True}, "store"),
    ("completion", {"search": {}, "echo": True}, "echo"),
    ("completion", {"search": {}, "logit_bias": {"97": 1}}, "logit_bias"),
    ("completion", {"search": {}, "frequency_penalty": 1}, "frequency_penalty"),
    ("completion", {"search": {}, "logprobs": 1}, "logprobs"),
    ("completion", {"search": {}, "n": 65}, "n"),
    ("completion", {"search": {}, "max_tokens": 511}, "max_tokens"),
    ("completion", {"search": {}, "prompt": [PROMPT, PROMPT]}, "prompt"),
    ("completion", {"search": {}, "prompt": [63, 10]}, "prompt"),
    ("completion", {"search": {"widht": 2}}, "search.widht"),
    ("completion", {"search": {"algorithm": "best_of_n", "width": 2}}, "search.width"),
    ("completion", {"search": {"task": {"name": "chess"}}}, "search.task.name"),
    ("chat", {"search": {}, "max_completion_tokens": 511}, "max_completion_tokens"),
    ("chat", {"search": {}, "logprobs": True, "top_logprobs": 1}, "top_logprobs"),
]


@pytest.mark.parametrize(("route", "body", "field"), REFUSED)
async def test_26_34_what_is_not_served_is_refused_by_name(
    world: World, route: str, body: dict[str, Any], field: str
) -> None:
    response = await ask(world, route, **body)
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (400, "invalid_request_error", field)
    assert "sampling" not in error["message"]
    assert world.engines.plain.bodies == []
    assert await world.logged() == []


@BOTH
async def test_an_unknown_model_is_404_with_and_without_search(world: World, route: str) -> None:
    for search in ({}, {"search": {}}):
        response = await ask(world, route, model="gpt-4", **search)
        assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")


async def test_defaults_that_clients_send_unasked_are_taken_with_search(world: World) -> None:
    defaults = {
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "echo": False,
        "logit_bias": {},
        "best_of": 1,
    }
    assert (await ask(world, search={}, **defaults)).status_code == 200


@pytest.mark.parametrize(
    ("raised", "status", "code"),
    [
        (RequestRefused("no", "top_p"), 400, "invalid_value"),
        (EngineBusy("full"), 503, "server_full"),
        (EngineDead("gone"), 503, "engine_unavailable"),
        (EngineError("broken"), 500, "generation_failed"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_errors_of_the_engine_have_the_one_shape_before_anything_is_sent(
    world: World, raised: Exception, status: int, code: str, stream: bool
) -> None:
    world.engines.plain.refuse = raised
    response = await ask(world, stream=stream)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert world.context.searches.admission.running == []


async def test_an_answer_that_the_engine_gave_up_is_no_answer(world: World) -> None:
    world.engines.plain.finish = "abort"
    assert (await ask(world)).status_code == 503
    text = (await ask(world, stream=True)).text
    assert frames(text)[-1]["error"]["code"] == "server_full"


# -- admission, endings ------------------------------------------------------------------------------------------


async def test_plain_completions_reserve_their_tokens_like_searches(tmp_path: Path) -> None:
    admission = {"tokens_in_flight": 100, "queue": 0}
    async with a_world(tmp_path, admission=admission) as world:
        hold(world.engines)
        first = asyncio.create_task(ask(world, n=4, max_tokens=20))
        await until(lambda: world.engines.policy.running)
        assert world.context.searches.admission.reserved == 80
        full = await ask(world, max_tokens=21)
        assert full.status_code in (429, 503)
        assert 1 <= int(full.headers["Retry-After"]) <= 120
        release(world.engines)
        assert (await first).status_code == 200
        assert world.context.searches.admission.reserved == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_27_a_client_that_leaves_a_completion_frees_its_engine_work(world: World, stream: bool) -> None:
    hold(world.engines)
    async with over_network(world) as http:
        asked = asyncio.create_task(http.post("/v1/completions", json={"prompt": PROMPT, "stream": stream}))
        await until(lambda: world.engines.policy.running)
        asked.cancel()
        await until(lambda: not world.engines.policy.running, 1.0)
    await until(lambda: not world.context.completions.running)
    assert world.context.searches.admission.running == []


@pytest.mark.parametrize("stream", [False, True])
async def test_27_a_client_that_leaves_a_search_ends_it(world: World, stream: bool) -> None:
    hold(world.engines)
    async with over_network(world) as http:
        body = {"prompt": PROMPT, "stream": stream, "search": {}}
        asked = asyncio.create_task(http.post("/v1/completions", json=body))
        await until(lambda: world.engines.policy.running)
        asked.cancel()
        await until(lambda: not world.engines.policy.running, 1.0)
    await until(lambda: not world.context.searches.running)
    (row,) = await world.logged()
    assert row.status == "cancelled"


@pytest.mark.parametrize("stream", [False, True])
async def test_the_deadline_ends_a_completion_and_says_so(tmp_path: Path, stream: bool) -> None:
    async with a_world(tmp_path, limits={"deadline_seconds": 0.05}) as world:
        hold(world.engines)
        response = await ask(world, stream=stream)
        assert (response.status_code, response.json()["error"]["code"]) == (504, "no_answer")
        assert response.headers["x-should-retry"] == "false"
        assert world.engines.policy.running == 0


async def test_draining_waits_for_completions_then_ends_them(world: World) -> None:
    hold(world.engines)
    asked = asyncio.create_task(ask(world))
    await until(lambda: world.engines.policy.running)
    await asyncio.gather(world.context.searches.drain(0.05), world.context.completions.drain(0.05))
    assert (await asked).status_code == 503
    assert (await ask(world)).status_code == 503
    assert world.engines.policy.running == 0


# -- a search ----------------------------------------------------------------------------------------------------


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
