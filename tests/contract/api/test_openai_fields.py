"""OpenAI's routes: fields that ask for nothing, fields that are honoured, and how usage is told."""

from __future__ import annotations

from typing import Any

import pytest

from fakes import encode
from ramify.api.openai.fields import FIELDS, Route, Row

from .openai_asks import BOTH, ask, content, frames
from .world import PROMPT, World

pytestmark = pytest.mark.anyio
VLLM_ROUTER: dict[str, Any] = {
    "no_stop_trim": False,
    "ignore_eos": False,
    "continue_final_message": False,
    "skip_special_tokens": True,
    "separate_reasoning": True,
    "stream_reasoning": True,
    "return_hidden_states": False,
    "include_reasoning": True,
    "logprobs": False,
}
"""Fields that vllm-router 0.1.17 adds to every chat."""
SEARCH = {"budget": {"simulations": 4}}


def neutral_values(route: Route, rows: dict[str, Row]) -> list[tuple[str, Any]]:
    """Every field of a route with each value that asks for nothing."""
    return [
        (name, value)
        for name, row in rows.items()
        if row.cell(route) is not None and row.search == "neutral"
        for value in (*row.neutral, None)
    ]


@pytest.mark.parametrize("search", [None, SEARCH])
@BOTH
async def test_52_every_value_that_asks_for_nothing_is_taken(
    world: World, route: str, search: dict[str, Any] | None
) -> None:
    for name, value in neutral_values("chat" if route == "chat" else "completions", dict(FIELDS)):
        response = await ask(world, route, max_tokens=4, search=search, **{name: value})
        assert response.status_code == 200, (name, value, response.text)


@BOTH
async def test_52_a_field_that_nobody_honours_is_refused_by_name_if_it_asks_for_something(
    world: World, route: str
) -> None:
    column: Route = "chat" if route == "chat" else "completions"
    for name, row in FIELDS.items():
        cell = row.cell(column)
        if cell is not None and cell.use == "neutral":
            error = (await ask(world, route, **{name: "something else"})).json()["error"]
            assert (error["param"], row.reason in error["message"]) == (name, True), error
    assert world.engines.plain.bodies == []


@BOTH
@pytest.mark.parametrize("stream", [False, True])
async def test_52_what_load_tools_always_send_and_a_search_does_not_heed_is_said_in_its_reply(
    world: World, route: str, stream: bool
) -> None:
    for asked, said in ((True, ["ignore_eos"]), (False, []), (None, [])):
        reply = await ask(world, route, search=SEARCH, stream=stream, ignore_eos=asked)
        shown = frames(reply.text)[-1] if stream else reply.json()
        assert shown["ramify"]["without_effect"] == said


@pytest.mark.parametrize("search", [None, SEARCH])
async def test_52_what_routers_and_load_tools_add_to_a_chat_is_taken(
    world: World, search: dict[str, Any] | None
) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}  # guidellm
    response = await ask(
        world, "chat", stream=True, stream_options=options, search=search, max_tokens=4, **VLLM_ROUTER
    )
    assert (response.status_code, len(frames(response.text)) > 1) == (200, True)


async def test_no_field_that_is_taken_unhonoured_reaches_the_engine(world: World) -> None:
    await ask(world, "chat", max_tokens=4, user="me", metadata={"a": "b"}, **VLLM_ROUTER)
    (body,) = world.engines.plain.bodies
    known = {
        "messages",
        "n",
        "request_id",
        "max_completion_tokens",
        "logprobs",
        "ignore_eos",
        "skip_special_tokens",
    }
    assert set(body) == known | {"include_reasoning", "continue_final_message"}


async def test_top_k_minus_one_keeps_all_tokens_on_every_route(world: World) -> None:
    assert (await ask(world, top_k=-1, max_tokens=4)).status_code == 200
    searched = await ask(world, top_k=-1, max_tokens=4, search=SEARCH, seed=1)
    native = await world.search(sampling={"top_k": -1, "max_tokens": 4}, search=SEARCH, seed=1)
    assert searched.json()["choices"][0]["text"] == native.json()["answer"]["text"]
    row, _ = await world.logged()
    tree = (await world.http.get(f"/v1/trees/{row.tree_id}")).json()["tree"]
    assert tree["sampling"]["top_k"] == 0


async def test_the_chat_template_is_told_what_the_request_says_with_search_and_without(world: World) -> None:
    said: dict[str, Any] = {
        "chat_template_kwargs": {"enable_thinking": False},
        "continue_final_message": True,
        "max_tokens": 4,
    }
    await ask(world, "chat", **said)
    (body,) = world.engines.plain.bodies
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    await ask(world, "chat", search=SEARCH, reasoning_effort="none", **said)
    (row,) = await world.logged()
    tree = (await world.http.get(f"/v1/trees/{row.tree_id}")).json()["tree"]
    told = (
        "continue_final_message=True;add_generation_prompt=False;reasoning_effort=none;enable_thinking=False;"
    )
    assert tree["prompt"] == PROMPT + told


async def test_a_native_search_tells_the_chat_template_too(world: World) -> None:
    body = {"messages": [{"role": "user", "content": PROMPT}], "chat_template_kwargs": {"thinking": False}}
    reply = (
        await world.http.post("/v1/search", json={**body, "search": SEARCH, "include_tree": True})
    ).json()
    assert reply["tree_document"]["prompt"] == PROMPT + "thinking=False;"
    alone = await world.http.post("/v1/search", json={"prompt": "?", "chat_template_kwargs": {"a": 1}})
    assert (alone.status_code, "chat_template_kwargs" in alone.text) == (400, True)


async def test_a_messages_name_reaches_the_template_and_its_id_does_not(world: World) -> None:
    message = {"role": "user", "content": PROMPT, "name": "ann", "id": "msg_1"}
    await ask(world, "chat", messages=[message], max_tokens=4)
    assert world.engines.plain.bodies[0]["messages"] == [{"role": "user", "content": PROMPT, "name": "ann"}]


async def test_as_many_stops_are_taken_as_vllm_is_told_to_take(world: World) -> None:
    stops = [f"#{i}" for i in range(64)]
    for search in (None, SEARCH):
        assert (await ask(world, stop=stops, max_tokens=4, search=search)).status_code == 200


@pytest.mark.parametrize("batch", [False, True])
async def test_a_search_takes_a_prompt_of_token_ids(world: World, batch: bool) -> None:
    ids = list(encode(PROMPT))
    by_ids = await ask(world, prompt=[ids] if batch else ids, search=SEARCH, seed=2, n=2)
    by_text = await ask(world, search=SEARCH, seed=2, n=2)
    assert [content(c) for c in by_ids.json()["choices"]] == [content(c) for c in by_text.json()["choices"]]
    assert by_ids.json()["usage"] == by_text.json()["usage"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_scored_prompt_has_no_completion_tokens(world: World, stream: bool) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    response = await ask(world, echo=True, logprobs=1, max_tokens=0, **options)
    usage = frames(response.text)[-1]["usage"] if stream else response.json()["usage"]
    assert usage == {"prompt_tokens": 2, "completion_tokens": 0, "total_tokens": 2}


@BOTH
async def test_continuous_usage_is_in_every_chunk(world: World, route: str) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    sent = frames((await ask(world, route, stream=True, stream_options=options, max_tokens=8)).text)
    assert all(frame["usage"]["prompt_tokens"] == 2 for frame in sent)
    alone = {"continuous_usage_stats": True}
    silent = frames((await ask(world, route, stream=True, stream_options=alone, max_tokens=8)).text)
    assert all("usage" not in frame for frame in silent)
    searched = frames((await ask(world, route, stream=True, stream_options=options, search=SEARCH)).text)
    assert all(frame["usage"]["completion_tokens"] > 0 for frame in searched)


@pytest.mark.parametrize("path", ["/v1/trees", "/v1/models", "/livez", "/v1/search/srch_1", "/metrics"])
async def test_an_unknown_query_parameter_is_refused_like_an_unknown_field(world: World, path: str) -> None:
    response = await world.http.get(path, params={"limti": 5})
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, "limti", "invalid_value")
    assert ("did you mean limit?" in error["message"]) == (path == "/v1/trees")


async def test_an_unknown_query_parameter_is_refused_before_anything_is_spent(world: World) -> None:
    response = await world.http.post("/v1/completions?beta=true", json={"prompt": PROMPT, "search": {}})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "beta")
    assert await world.logged() == []


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/completions", "x-ramify-search"),
        ("/v1/search", "x-ramify-search"),
        ("/v1/search", "Idempotency-Key"),
    ],
)
async def test_a_header_that_is_given_twice_is_refused(world: World, path: str, name: str) -> None:
    twice = [(name, "mcts"), (name, "nope")]
    response = await world.http.post(path, json={"prompt": PROMPT}, headers=twice)
    error = response.json()["error"]
    assert (response.status_code, error["param"].lower()) == (400, name.lower())
    assert "is given 2 times" in error["message"]
    assert await world.logged() == []


async def test_an_answer_takes_as_many_stops_on_every_route(world: World) -> None:
    for count, status in ((64, 200), (65, 400)):
        sampling = {"stop": [f"stop {i}" for i in range(count)]}
        response = await world.http.post("/v1/search", json={"prompt": PROMPT, "sampling": sampling})
        assert response.status_code == status, response.text


async def test_a_pages_query_is_its_own(world: World) -> None:
    assert (await world.http.get("/?status=complete")).status_code == 200
