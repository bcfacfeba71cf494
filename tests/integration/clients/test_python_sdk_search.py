"""OpenAI's Python SDK: completions and chats that search."""

from __future__ import annotations

import time
from typing import Any

import httpx
import openai
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletionChunk

from server_process import ServerProcess

from .sdk_requests import CHAT, ENDLESS, KEY, MODEL, PROMPT, SEARCH

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


def test_an_alias_searches_and_its_tree_is_named_in_a_header(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="deep",
        messages=CHAT,  # type: ignore[arg-type]
    )
    answer = raw.parse()
    assert answer.model_extra is not None
    assert raw.headers["x-ramify-tree"] == answer.model_extra["ramify"]["tree"]["id"]


def tree_behind(client: openai.OpenAI, answer: Completion | ChatCompletionChunk) -> dict[str, Any]:
    """The logged tree that an answer came from."""
    ramify = answer.model_extra["ramify"]  # type: ignore[index]
    url = f"{str(client.base_url).removesuffix('/v1/')}/v1/trees/{ramify['tree']['id']}"
    tree: dict[str, Any] = httpx.get(url, headers={"Authorization": f"Bearer {KEY}"}).json()["tree"]
    return tree


def test_a_searched_completion_gives_the_trees_best_answers(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt=PROMPT, n=3, logprobs=0, seed=7, extra_body=SEARCH)
    assert answer.usage is not None
    assert 200 < answer.usage.completion_tokens <= 500
    assert 1 <= len(answer.choices) <= 3
    tree = tree_behind(client, answer)
    assert [a["text"] for a in tree["candidates"]][: len(answer.choices)] == [c.text for c in answer.choices]
    told = answer.choices[0].logprobs
    assert told is not None
    assert "".join(told.tokens or []) == answer.choices[0].text


def test_a_searched_chat_is_streamed_in_proper_chunks(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=CHAT,  # type: ignore[arg-type]
            stream=True,
            stream_options={"include_usage": True},
            extra_body=SEARCH,
        )
    )
    deltas = [c.choices[0].delta for c in chunks if c.choices]
    assert deltas[0].role == "assistant"
    assert "".join(d.content or "" for d in deltas) == tree_behind(client, chunks[0])["answer"]["text"]
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 200


def test_29_comments_keep_a_silent_search_alive_past_the_clients_read_timeout(server: ServerProcess) -> None:
    with openai.OpenAI(
        base_url=f"{server.url}/v1", api_key=KEY, timeout=httpx.Timeout(0.5), max_retries=0
    ) as client:
        began = time.monotonic()
        body = {"search": {**ENDLESS["search"], "budget": {"simulations": 10_000, "seconds": 3.0}}}
        chunks = list(client.completions.create(model=MODEL, prompt=PROMPT, stream=True, extra_body=body))
    assert time.monotonic() - began > 1.0, "twice the read timeout"
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")
