"""OpenAI's routes: what is refused, by which name, and what the engine's errors become."""

from __future__ import annotations

from typing import Any

import pytest

from ramify.engines.errors import EngineBusy, EngineError, RequestRefused
from ramify.search.protocols import EngineDead

from .openai_asks import BOTH, ask, frames
from .world import PROMPT, World

pytestmark = pytest.mark.anyio
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
    ("completion", {"stop": ["a"] * 65}, "stop"),
    ("completion", {"stream_options": {"include_usage": True}}, "stream_options"),
    ("completion", {"temprature": 1}, "temprature"),
    ("completion", {"metadata": {"a": "b" * 513}}, "metadata.a"),
    ("chat", {"tools": [{"type": "function"}]}, "tools.0.function"),
    ("chat", {"tools": [{"type": "function", "function": {"name": "add"}}]}, "tools"),
    ("chat", {"response_format": {"type": "xml"}}, "response_format.type"),
    ("chat", {"response_format": {"type": "json_schema"}}, "response_format"),
    ("chat", {"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs"),
    ("chat", {"structured_outputs": {"guided": "a"}}, "structured_outputs.guided"),
    ("chat", {"messages": [{"role": "assistant"}]}, "messages.0"),
    ("chat", {"top_logprobs": 2}, "top_logprobs"),
    ("chat", {"max_tokens": 2, "max_completion_tokens": 3}, "max_tokens"),
    ("chat", {"max_completion_tokens": 511}, "max_completion_tokens"),
    ("chat", {"reasoning_effort": "little"}, "reasoning_effort"),
    ("completion", {"reasoning_effort": "low"}, "reasoning_effort"),
    ("chat", {"messages": []}, "messages"),
    ("chat", {"messages": [{"role": "user", "content": "?", "refusal": "no"}]}, "messages.0.refusal"),
    ("chat", {"store": True}, "store"),
    ("completion", {"search": {}, "echo": True}, "echo"),
    ("completion", {"search": {}, "logit_bias": {"97": 1}}, "logit_bias"),
    ("completion", {"search": {}, "frequency_penalty": 1}, "frequency_penalty"),
    ("completion", {"search": {}, "logprobs": 1}, "logprobs"),
    ("completion", {"search": {}, "n": 65}, "n"),
    ("completion", {"search": {}, "max_tokens": 511}, "max_tokens"),
    ("completion", {"search": {}, "prompt": [PROMPT, PROMPT]}, "prompt"),
    ("completion", {"search": {}, "prompt": [[63, 10], [63, 10]]}, "prompt"),
    ("completion", {"search": {}, "prompt": [256]}, "prompt"),
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
    assert not world.context.searches.admission.running


async def test_an_answer_that_the_engine_gave_up_is_no_answer(world: World) -> None:
    world.engines.plain.finish = "abort"
    assert (await ask(world)).status_code == 503
    text = (await ask(world, stream=True)).text
    assert frames(text)[-1]["error"]["code"] == "server_full"
