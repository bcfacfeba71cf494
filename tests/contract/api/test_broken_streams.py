"""A stream that breaks off says so, whatever broke it; and whatever enters a tree can leave it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .world import PROMPT, World, events

pytestmark = pytest.mark.anyio

JSON = {"content-type": "application/json"}
HALVES = [
    ('{"prompt": "?", "task": {"name": "exact", "problem": {"answer": "x\\ud83d"}}}', "task.problem.answer"),
    ('{"prompt": "?\\udc00"}', "prompt"),
    ('{"messages": [{"role": "user", "content": "\\ud83d"}]}', "messages.0.content"),
    ('{"prompt": "?", "sampling": {"stop": ["\\ud83d"]}}', "sampling.stop.0"),
    ('{"prompt": "?", "task": {"name": "none", "problem": {"a": NaN}}}', "task.problem.a"),
]


def breaking(*_: Any, **__: Any) -> Any:
    raise RuntimeError("secret")


@pytest.mark.parametrize(("body", "param"), HALVES)
async def test_what_no_tree_could_hold_is_refused_by_the_fields_name(
    world: World, body: str, param: str
) -> None:
    reply = await world.http.post("/v1/search", content=body, headers=JSON)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
    assert await world.logged() == []


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/v1/value"])
async def test_half_a_surrogate_pair_is_refused_on_every_route(world: World, path: str) -> None:
    body = '{"prompt": "?", "messages": [{"role": "user", "content": "?", "name": "\\ud83d"}]}'
    reply = await world.http.post(path, content=body, headers=JSON)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "messages.0.name")


@pytest.mark.parametrize("text", ["\0", "\u2028\x85", "🌳\ufffd", "\x1b[31m"])
async def test_what_enters_a_tree_can_leave_it(world: World, text: str) -> None:
    problem = {"name": "exact", "problem": {"answer": text + "a"}}
    reply = (await world.search(prompt=PROMPT + text, task=problem, include_tree=True)).json()
    tree = reply["tree"]["id"]
    read = (await world.http.get(f"/v1/trees/{tree}")).json()["tree"]
    assert (read["prompt"], read["problem"]) == (PROMPT + text, problem["problem"])
    assert reply["tree_document"]["problem"] == problem["problem"]
    for path in (
        f"/v1/search/{tree}",
        f"/v1/trees/{tree}?format=dot",
        "/v1/trees?limit=3",
        "/v1/trees?after=0",
    ):
        assert (await world.http.get(path)).status_code == 200


async def test_a_search_whose_stream_breaks_off_ends_with_an_error_event(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ramify.api.convert.progress_event", breaking)
    reply = await world.search(stream=True, search={"budget": {"simulations": 200}})
    name, data = events(reply.text)[-1]
    assert (name, data["error"]["code"]) == ("error", "internal_error")
    assert reply.headers["x-request-id"] in data["error"]["message"]
    assert "secret" not in reply.text


@pytest.mark.parametrize("search", [None, {"budget": {"tokens": 50}}])
async def test_an_openai_stream_that_breaks_off_ends_with_an_error_frame(
    world: World, monkeypatch: pytest.MonkeyPatch, search: Any
) -> None:
    for name in ("plain_chunk", "chunks"):
        monkeypatch.setattr(f"ramify.api.openai.replies.{name}", breaking)
    body = {"prompt": PROMPT, "max_tokens": 4, "stream": True} | ({"search": search} if search else {})
    reply = await world.http.post("/v1/completions", json=body)
    frames = [line.removeprefix("data: ") for line in reply.text.splitlines() if line.startswith("data: ")]
    assert json.loads(frames[-2])["error"]["code"] == "internal_error"
    assert frames[-1] == "[DONE]"
