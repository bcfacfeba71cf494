"""Completions by vLLM's serving: tools, constraints, responses, the tokenizer, and cancelling by id."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import APIError, AsyncOpenAI, BadRequestError, ConflictError

from fakes import encode
from ramify.engines.errors import EngineError, RequestRefused
from ramify.search.protocols import EngineDead

from .openai_asks import BOTH, CHAT, ask, frames
from .world import PROMPT, World, a_world, hold, over_network, release, until

pytestmark = pytest.mark.anyio
ADD = {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}
TOOLS = [{"type": "function", "function": ADD}]
CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
CONSTRAINTS: list[dict[str, Any]] = [
    {"response_format": {"type": "json_object"}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}},
    {"structured_outputs": {"json": {"type": "object"}}},
    {"structured_outputs": {"choice": ["a", "b"]}},
    {"structured_outputs": {"regex": "a+"}},
]


@pytest.fixture
async def tooled(tmp_path: Path) -> AsyncIterator[World]:
    """A server that can read tool calls."""
    async with a_world(tmp_path, engine={"tool_parser": "hermes"}) as world:
        yield world


@pytest.fixture
async def client(tooled: World) -> AsyncIterator[AsyncOpenAI]:
    async with (
        over_network(tooled) as http,
        AsyncOpenAI(base_url=f"{http.base_url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


async def respond(world: World, **body: Any) -> httpx.Response:
    headers = body.pop("headers", {})
    return await world.http.post("/v1/responses", json={"input": PROMPT, **body}, headers=headers)


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    blocks = [block.splitlines() for block in text.strip().split("\n\n")]
    return [(e.removeprefix("event: "), json.loads(d.removeprefix("data: "))) for e, d in blocks]


# -- tools and constraints ---------------------------------------------------------------------------------------


async def test_tools_reach_the_engine_and_calls_come_back(tooled: World, client: AsyncOpenAI) -> None:
    tooled.engines.plain.called, tooled.engines.plain.finish = [CALL], "tool_calls"
    answer = await client.chat.completions.create(
        model="letters",
        messages=CHAT,  # type: ignore[arg-type]
        tools=TOOLS,  # type: ignore[arg-type]
        tool_choice="required",
        parallel_tool_calls=False,
        max_completion_tokens=8,
    )
    (choice,) = answer.choices
    assert choice.message.tool_calls is not None
    assert choice.message.tool_calls[0].function.arguments == '{"a": 1}'  # type: ignore[union-attr]
    assert choice.finish_reason == "tool_calls"
    (body,) = tooled.engines.plain.bodies
    assert (body["tools"], body["tool_choice"], body["parallel_tool_calls"]) == (TOOLS, "required", False)


async def test_a_conversation_with_tool_calls_reaches_the_engine_whole(tooled: World) -> None:
    told = [
        *CHAT,
        {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning": "hm"},
        {"role": "tool", "tool_call_id": "call_1", "content": "2"},
    ]
    assert (await ask(tooled, "chat", messages=told, max_tokens=4)).status_code == 200
    sent = tooled.engines.plain.bodies[0]["messages"]
    assert sent[1] == {"role": "assistant", "tool_calls": [CALL], "reasoning": "hm"}
    assert sent[2] == told[2]


async def test_tools_that_could_not_be_called_are_refused_and_those_that_need_not_are_taken(
    world: World,
) -> None:
    for path, tools in (
        ("/v1/chat/completions", TOOLS),
        ("/v1/responses", [{"type": "function", "name": "add", "parameters": {}}]),
    ):
        body = {"messages": CHAT} if "chat" in path else {"input": PROMPT}
        refused = await world.http.post(path, json={**body, "tools": tools})
        error = refused.json()["error"]
        assert (refused.status_code, error["param"]) == (400, "tools")
        assert "engine.tool_parser" in error["message"]
        taken = await world.http.post(path, json={**body, "tools": tools, "tool_choice": "none"})
        assert taken.status_code == 200, taken.text


@BOTH
@pytest.mark.parametrize("constraint", CONSTRAINTS)
async def test_constraints_reach_the_engine_as_they_were_sent(
    world: World, route: str, constraint: dict[str, Any]
) -> None:
    assert (await ask(world, route, max_tokens=4, **constraint)).status_code == 200
    (body,) = world.engines.plain.bodies
    assert {name: body[name] for name in constraint} == constraint


@pytest.mark.parametrize(
    "asked",
    [
        *CONSTRAINTS,
        {"tools": TOOLS},
        {"tool_choice": "auto"},
        {"include_reasoning": False},
        {"messages": [*CHAT, {"role": "assistant", "tool_calls": [CALL]}]},
        {"messages": [*CHAT, {"role": "tool", "tool_call_id": "call_1", "content": "2"}]},
    ],
)
async def test_beside_search_tools_and_constraints_are_refused_by_name(
    tooled: World, asked: dict[str, Any]
) -> None:
    error = (await ask(tooled, "chat", search={}, **asked)).json()["error"]
    (name,) = asked
    assert error["param"] in (name, "messages.1.tool_calls", "messages.1.tool_call_id"), error
    assert await tooled.logged() == []


async def test_a_constraint_that_the_engine_refuses_is_the_askers_fault(world: World) -> None:
    world.engines.plain.refuse = RequestRefused("no such grammar", "structured_outputs")
    reply = await ask(world, structured_outputs={"grammar": "("})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "structured_outputs")


# -- responses ---------------------------------------------------------------------------------------------------


async def test_a_response_is_vllms_under_the_served_models_name(client: AsyncOpenAI, tooled: World) -> None:
    answer = await client.responses.create(
        model="letters", input=PROMPT, max_output_tokens=8, metadata={"a": "b"}
    )
    assert (answer.model, answer.id[:5], len(answer.output_text)) == ("letters", "resp_", 6)
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (2, 7)
    (body,) = tooled.engines.plain.bodies
    assert (body["max_output_tokens"], body["metadata"], body["store"]) == (8, {"a": "b"}, False)
    assert await tooled.logged() == []


async def test_a_responses_events_are_openais(client: AsyncOpenAI) -> None:
    kinds, text = [], ""
    async with await client.responses.create(
        model="letters", input=[{"role": "user", "content": PROMPT}], stream=True
    ) as stream:
        async for event in stream:
            kinds.append(event.type)
            text += getattr(event, "delta", "")
    assert (kinds[0], kinds[-1], len(text)) == ("response.created", "response.completed", 6)


async def test_a_response_without_a_cap_reserves_what_it_may_cost_like_a_chat(world: World) -> None:
    hold(world.engines)
    asked = asyncio.create_task(respond(world))
    await until(lambda: world.engines.policy.running)
    assert world.context.searches.admission.reserved == 510
    release(world.engines)
    assert (await asked).status_code == 200
    text = (await world.http.get("/metrics")).text
    assert 'ramify_completion_tokens_total{route="response"} 7.0' in text


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"search": {}}, "search"),
        ({"model": "letters:mcts"}, "model"),
        ({"headers": {"x-ramify-search": "mcts"}}, "x-ramify-search"),
        ({"headers": {"Idempotency-Key": "k"}}, "Idempotency-Key"),
        ({"truncation": "auto"}, "truncation"),
        ({"inptu": "x"}, "inptu"),
        ({"max_output_tokens": 511}, "max_output_tokens"),
        ({"input": "?" * 512}, "input"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"include": ["file_search_call.results"]}, "include.0"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0.type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://x"}]}]},
            "input.0.content.0.type",
        ),
    ],
)
async def test_what_a_response_cannot_do_is_refused_by_name(
    world: World, body: dict[str, Any], field: str
) -> None:
    reply = await respond(world, **body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, field), reply.text
    assert world.engines.plain.bodies == []


async def test_a_response_that_fails_on_its_way_ends_in_an_error_that_clients_raise(
    client: AsyncOpenAI, tooled: World
) -> None:
    tooled.engines.plain.breaks = EngineError("broken")
    async with await client.responses.create(model="letters", input=PROMPT, stream=True) as stream:
        with pytest.raises(APIError, match="broken"):
            async for _ in stream:
                pass


# -- the tokenizer -----------------------------------------------------------------------------------------------


async def test_the_tokenizers_routes_say_what_the_model_reads(world: World) -> None:
    post = world.http.post
    text = (await post("/tokenize", json={"prompt": PROMPT, "return_token_strs": True})).json()
    assert text == {
        "count": 2,
        "max_model_len": 512,
        "tokens": list(encode(PROMPT)),
        "token_strs": list(PROMPT),
    }
    for model in ("letters", "letters:mcts", None):
        chat = (await post("/tokenize", json={"messages": CHAT, "model": model})).json()
        assert chat["tokens"] == list(encode(PROMPT))
    assert (await post("/detokenize", json={"tokens": chat["tokens"]})).json() == {"prompt": PROMPT}
    assert (await world.http.get("/tokenizer_info")).json()["tokenizer_class"] == "Letters"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/tokenize", {}, ""),
        ("/tokenize", {"prompt": "?" * 100_001}, "prompt"),
        ("/tokenize", {"prompt": "?", "tools": TOOLS}, ""),
        ("/tokenize", {"prompt": "?", "model": "gpt-4"}, "model"),
        ("/detokenize", {"tokens": [256]}, "tokens"),
        ("/detokenize", {"tokens": [97] * 100_001}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens.0"),
    ],
)
async def test_what_the_tokenizer_cannot_read_is_refused_by_name(
    world: World, path: str, body: dict[str, Any], field: str
) -> None:
    reply = await world.http.post(path, json=body)
    assert reply.status_code == (404 if field == "model" else 400)
    assert (reply.json()["error"]["param"] or "") == field


async def test_the_tokenizers_routes_need_the_scope_search(keyed: World) -> None:
    assert (await keyed.http.get("/tokenizer_info")).status_code == 401
    assert (await keyed.http.get("/tokenizer_info", headers=keyed.as_key("trainer"))).status_code == 403
    assert (await keyed.http.get("/tokenizer_info", headers=keyed.as_key("alice"))).status_code == 200


async def test_a_dead_engine_answers_503_wherever_a_prompt_is_read(world: World) -> None:
    world.engines.plain.refuse = EngineDead("gone")
    for path, body in (("/v1/chat/completions", {"messages": CHAT}), ("/tokenize", {"prompt": "?"})):
        reply = await world.http.post(path, json=body)
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "engine_unavailable")


# -- cancelling by id --------------------------------------------------------------------------------------------

ASKS: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": PROMPT},
    "/v1/chat/completions": {"messages": CHAT},
    "/v1/responses": {"input": PROMPT},
}


@pytest.mark.parametrize("path", ASKS)
async def test_a_request_is_cancelled_by_its_id_and_its_engine_work_freed(world: World, path: str) -> None:
    hold(world.engines)
    headers = {"x-request-id": "mine"}
    asked = asyncio.create_task(world.http.post(path, json=ASKS[path], headers=headers))
    await until(lambda: world.engines.policy.running)
    reply = await world.http.post(f"{path}/mine/cancel")
    assert (reply.json()["status"], reply.json()["cancelled"]) == ("cancelled", 1)
    answer = await asked
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "cancelled")
    assert answer.headers["x-should-retry"] == "false"
    assert world.engines.policy.running == len(world.context.searches.admission.running) == 0
    assert (await world.http.post(f"{path}/mine/cancel")).status_code == 404


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
async def test_a_stream_is_cancelled_by_the_id_of_its_chunks_and_says_so_in_a_frame(
    world: World, path: str
) -> None:
    world.engines.plain.gate = asyncio.Event()
    async with (
        over_network(world) as http,
        http.stream("POST", path, json={**ASKS[path], "stream": True}) as stream,
    ):
        lines = stream.aiter_lines()
        first = json.loads((await anext(lines)).removeprefix("data: "))
        assert (await http.post(f"{path}/{first['id']}/cancel")).json()["cancelled"] == 1
        rest = "\n\n".join([line async for line in lines if line])
    assert frames(rest)[-1]["error"]["code"] == "cancelled"


async def test_a_request_that_waits_for_its_turn_is_cancelled_too(tmp_path: Path) -> None:
    async with a_world(tmp_path, admission={"tokens_in_flight": 20}) as world:
        hold(world.engines)
        first = asyncio.create_task(ask(world, max_tokens=20, headers={"x-request-id": "first"}))
        await until(lambda: world.engines.policy.running)
        second = asyncio.create_task(ask(world, max_tokens=20, headers={"x-request-id": "second"}))
        await until(lambda: world.context.completions.queued)
        assert (await world.http.post("/v1/completions/second/cancel")).json()["cancelled"] == 1
        assert (await second).json()["error"]["code"] == "cancelled"
        release(world.engines)
        assert (await first).status_code == 200
        assert not world.context.completions.queued
        assert world.context.searches.admission.reserved == 0


async def test_nobody_cancels_another_keys_request(keyed: World) -> None:
    hold(keyed.engines)
    headers = {**keyed.as_key("alice"), "x-request-id": "same"}
    asked = asyncio.create_task(ask(keyed, headers=headers))
    await until(lambda: keyed.engines.policy.running)
    refused = await keyed.http.post("/v1/completions/same/cancel", headers=keyed.as_key("bob"))
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "not_found")
    assert (await keyed.http.post("/v1/completions/same/cancel")).status_code == 401
    release(keyed.engines)
    assert (await asked).status_code == 200


async def test_requests_of_one_request_id_each_get_their_own_answer(world: World) -> None:
    alone = [(await ask(world, max_tokens=8, n=2, seed=seed)).json()["choices"] for seed in range(6)]
    together = await asyncio.gather(
        *(ask(world, max_tokens=8, n=2, seed=seed, headers={"x-request-id": "same"}) for seed in range(6))
    )
    assert [reply.json()["choices"] for reply in together] == alone
    assert len({reply.json()["id"] for reply in together}) == 6


async def test_openais_client_raises_its_own_errors_for_them(client: AsyncOpenAI, tooled: World) -> None:
    with pytest.raises(BadRequestError, match="previous_response_id"):
        await client.responses.create(model="letters", input=PROMPT, previous_response_id="resp_1")
    hold(tooled.engines)
    asked = asyncio.create_task(
        client.responses.create(model="letters", input=PROMPT, extra_headers={"x-request-id": "mine"})
    )
    await until(lambda: tooled.engines.policy.running)
    assert (await client.responses.cancel("mine")).status == "cancelled"
    with pytest.raises(ConflictError):
        await asked
