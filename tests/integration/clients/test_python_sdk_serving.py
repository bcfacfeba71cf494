"""OpenAI's Python SDK: what vLLM's own serving adds, such as tools, constraints, responses and token ids."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest

from server_process import ServerProcess

from .sdk_requests import CHAT, KEY, MODEL, PROMPT

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


SUMS = ["8 * 3 = 24", "5 + 7 = 12"]
ADD: dict[str, Any] = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def test_constrained_output_keeps_to_its_constraint(client: openai.OpenAI) -> None:
    chosen = client.completions.create(
        model=MODEL, prompt=PROMPT, max_tokens=20, n=4, extra_body={"structured_outputs": {"choice": SUMS}}
    )
    assert {choice.text for choice in chosen.choices} <= set(SUMS)
    number = client.chat.completions.create(
        model=MODEL,
        messages=CHAT,  # type: ignore[arg-type]
        max_completion_tokens=4,
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "integer"}}},
    )
    assert isinstance(json.loads(number.choices[0].message.content or ""), int)
    with pytest.raises(openai.BadRequestError, match="regex"):
        client.completions.create(
            model=MODEL, prompt=PROMPT, extra_body={"structured_outputs": {"regex": "("}}
        )


def test_tools_are_told_to_the_model_which_need_not_call_them(client: openai.OpenAI) -> None:
    called = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    answered = [
        {"role": "assistant", "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "call_1", "content": "8"},
    ]
    for choice in ("auto", "none"):
        answer = client.chat.completions.create(
            model=MODEL,
            messages=[*CHAT, *answered],  # type: ignore[list-item]
            tools=[ADD],  # type: ignore[list-item]
            tool_choice=choice,  # type: ignore[arg-type]
        )
        assert " = " in (answer.choices[0].message.content or "")
    with pytest.raises(openai.BadRequestError, match="tool_choice"):
        client.chat.completions.create(
            model=MODEL,
            messages=CHAT,  # type: ignore[arg-type]
            tools=[ADD],  # type: ignore[list-item]
            tool_choice={"type": "function", "function": {"name": "other"}},
        )


def test_a_response_whole_and_as_events(client: openai.OpenAI) -> None:
    whole = client.responses.create(
        model=MODEL, input="3 5 7 8 to 24", max_output_tokens=40, extra_body={"seed": 3}
    )
    assert (whole.model, whole.status, " = " in whole.output_text) == (MODEL, "completed", True)
    assert whole.usage is not None
    assert whole.usage.output_tokens > 5
    events = list(
        client.responses.create(
            model=MODEL,
            input=[{"role": "user", "content": [{"type": "input_text", "text": "3 5 7 8 to 24"}]}],
            max_output_tokens=40,
            stream=True,
            extra_body={"seed": 3},
        )
    )
    written = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert (events[0].type, events[-1].type, written) == (
        "response.created",
        "response.completed",
        whole.output_text,
    )
    with pytest.raises(openai.BadRequestError, match="input"):
        client.responses.create(model=MODEL, input="3 " * 2000)


def test_the_tokenizers_routes_agree_with_what_the_model_reads(server: ServerProcess) -> None:
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {KEY}"}) as http:
        text = http.post("/tokenize", json={"prompt": PROMPT, "return_token_strs": True}).json()
        chat = http.post("/tokenize", json={"messages": CHAT}).json()
        assert (text["count"], text["tokens"], text["max_model_len"]) == (8, chat["tokens"], 128)
        back = http.post("/detokenize", json={"tokens": text["tokens"][1:]}).json()
        assert back == {"prompt": PROMPT}
        info = http.get("/tokenizer_info").json()
        assert (info["eos_token"], str(server.folder) in str(info)) == ("</s>", False)
        assert "site-packages" not in str(info)
        wrong = http.post("/tokenize", json={"messages": CHAT, "chat_template_kwargs": {"tokenize": False}})
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "chat_template_kwargs")


def test_lm_evals_request_scores_two_prompts_of_token_ids(client: openai.OpenAI) -> None:
    prompts = [[1, 14, 215, 218, 222, 5, 239, 4], [1, 14, 217, 218]]
    for cap in (0, 1):
        answer = client.completions.create(
            model=MODEL, prompt=prompts, echo=True, logprobs=1, max_tokens=cap, temperature=0, seed=1234
        )
        for choice, prompt in zip(answer.choices, prompts, strict=True):
            assert choice.logprobs is not None
            first, *scores = choice.logprobs.token_logprobs or ()
            assert first is None
            assert len(scores) == len(prompt) + cap - 1
            assert all(isinstance(score, float) for score in scores)
        assert answer.usage is not None
        assert answer.usage.completion_tokens == cap * len(prompts)


def test_vllms_own_way_to_keep_all_tokens_and_as_many_stops_as_it_takes(client: openai.OpenAI) -> None:
    whole, kept = (
        client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=8, seed=3, extra_body=body)
        for body in ({}, {"top_k": -1})
    )
    assert [c.text for c in whole.choices] == [c.text for c in kept.choices]
    stops = [f"#{i}" for i in range(63)] + ["="]
    stopped = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=20, stop=stops)
    assert (stopped.choices[0].finish_reason, "=" in stopped.choices[0].text) == ("stop", False)
