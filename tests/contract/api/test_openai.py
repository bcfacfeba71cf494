"""OpenAI's routes: what is asked of the policy alone, admission, and how completions end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fakes import encode

from .openai_asks import BOTH, ask, content, frames
from .world import PROMPT, World, a_world, hold, over_network, release, until

pytestmark = pytest.mark.anyio


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
    assert set(body) == {*fields, "prompt", "request_id"}


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
    assert not world.context.searches.admission.running


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
