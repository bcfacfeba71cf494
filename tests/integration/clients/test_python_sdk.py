"""The official Python SDK against a running server."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletionChunk

from server_process import ServerProcess

from .conftest import KEY

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]
MODEL, PROMPT = "countdown-tiny", "3 5 7 8 to 24\n"
CHAT = [{"role": "user", "content": "3 5 7 8 to 24"}]
SEARCH = {"search": {"budget": {"tokens": 500}}}
ENDLESS = {"search": {"algorithm": "best_of_n", "budget": {"simulations": 10_000, "tokens": 200_000}}}


# -- completions -------------------------------------------------------------------------------------------------


def test_a_completion_has_its_text_usage_and_reason(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=40, seed=1)
    assert (answer.object, answer.model, answer.id[:5]) == ("text_completion", MODEL, "cmpl-")
    assert " = " in answer.choices[0].text
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 8
    assert answer.usage.total_tokens == 8 + answer.usage.completion_tokens
    assert answer._request_id


def test_without_max_tokens_a_completion_has_at_most_16(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt=PROMPT, extra_body={"ignore_eos": True})
    assert answer.usage is not None
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (16, "length")


def test_a_seed_repeats_an_answer_and_its_choices_differ(client: openai.OpenAI) -> None:
    first, second = (
        client.completions.create(model=MODEL, prompt=PROMPT, n=8, max_tokens=6, seed=-7) for _ in range(2)
    )
    texts = [choice.text for choice in first.choices]
    assert texts == [choice.text for choice in second.choices]
    assert [choice.index for choice in first.choices] == list(range(8))
    assert len(set(texts)) > 1


def test_prompts_may_be_texts_or_token_ids_in_batches(client: openai.OpenAI) -> None:
    texts = client.completions.create(model=MODEL, prompt=[PROMPT, "4 6 8 to 4\n"], n=2, max_tokens=3)
    assert [choice.index for choice in texts.choices] == [0, 1, 2, 3]
    one = client.completions.create(model=MODEL, prompt=[1, 5, 6], max_tokens=3, temperature=0)
    two = client.completions.create(model=MODEL, prompt=[[1, 5, 6], [1, 7]], max_tokens=3, temperature=0)
    assert one.choices[0].text == two.choices[0].text
    assert two.usage is not None
    assert two.usage.prompt_tokens == 5


def test_logprobs_are_of_the_tokens_written(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=5, logprobs=2, temperature=1)
    told = answer.choices[0].logprobs
    assert told is not None
    assert told.tokens is not None
    assert told.token_logprobs is not None
    assert told.top_logprobs is not None
    assert "".join(told.tokens) == answer.choices[0].text
    assert all(value <= 0 for value in told.token_logprobs)
    assert all(2 <= len(top) <= 3 for top in told.top_logprobs)
    assert told.text_offset == [sum(map(len, told.tokens[:i])) for i in range(5)]


def test_echo_puts_the_prompt_first_and_scores_it(client: openai.OpenAI) -> None:
    scored = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=0, echo=True, logprobs=1)
    assert scored.choices[0].text == PROMPT
    told = scored.choices[0].logprobs
    assert told is not None
    assert told.token_logprobs is not None
    assert told.token_logprobs[0] is None
    assert all(value < 0 for value in told.token_logprobs[1:])
    more = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=2, echo=True)
    assert more.choices[0].text.startswith(PROMPT)


def test_stop_strings_end_a_completion_and_are_not_part_of_it(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt=PROMPT, stop=["=", "\n"], max_tokens=20)
    assert answer.choices[0].finish_reason == "stop"
    assert "=" not in answer.choices[0].text


def test_biases_and_penalties_change_what_is_written(client: openai.OpenAI) -> None:
    biased = client.completions.create(model=MODEL, prompt=PROMPT, logit_bias={"5": 100}, max_tokens=4)
    assert len(set(biased.choices[0].text.split())) == 1
    free, punished = (
        client.completions.create(
            model=MODEL,
            prompt=PROMPT,
            temperature=0,
            max_tokens=60,
            presence_penalty=penalty,
            frequency_penalty=penalty,
            extra_body={"ignore_eos": True},
        )
        for penalty in (0, 2)
    )
    assert free.choices[0].text != punished.choices[0].text


@pytest.mark.parametrize("chat", [False, True])
def test_a_stream_says_in_chunks_what_the_whole_answer_says(client: openai.OpenAI, chat: bool) -> None:
    if chat:
        whole = client.chat.completions.create(model=MODEL, messages=CHAT, seed=3)  # type: ignore[arg-type]
        text = whole.choices[0].message.content
        chunks = list(
            client.chat.completions.create(
                model=MODEL,
                messages=CHAT,  # type: ignore[arg-type]
                seed=3,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        assert (chunks[0].choices[0].delta.role, chunks[0].choices[0].delta.content) == ("assistant", "")
        written = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    else:
        plain = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=60, seed=3)
        text = plain.choices[0].text
        chunks = list(  # type: ignore[arg-type]
            client.completions.create(
                model=MODEL,
                prompt=PROMPT,
                max_tokens=60,
                seed=3,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        written = "".join(c.choices[0].text for c in chunks if c.choices)  # type: ignore[attr-defined]
    assert written == text
    assert len(chunks) > 3  # on a busy machine vLLM joins what has piled up
    assert len({(c.id, c.created) for c in chunks}) == 1
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert all(c.usage is None for c in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 5


def test_a_stream_of_several_choices_with_logprobs(client: openai.OpenAI) -> None:
    chunks = list(
        client.completions.create(model=MODEL, prompt=PROMPT, n=3, logprobs=1, max_tokens=4, stream=True)
    )
    assert {c.choices[0].index for c in chunks} == {0, 1, 2}
    for c in chunks:
        assert c.choices[0].logprobs is not None


# -- chat --------------------------------------------------------------------------------------------------------


def test_a_chat_goes_through_the_models_template(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "developer", "content": "Reach the target."},
            {"role": "user", "content": [{"type": "text", "text": "3 5 7 8 to 24"}]},
        ],
        max_completion_tokens=40,
        logprobs=True,
        top_logprobs=2,
        n=2,
    )
    assert (answer.object, answer.id[:9]) == ("chat.completion", "chatcmpl-")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 8
    for choice in answer.choices:
        assert choice.message.role == "assistant"
        assert choice.logprobs is not None
        assert choice.logprobs.content is not None
        tokens = [t.token for t in choice.logprobs.content if t.token != "</s>"]
        assert "".join(tokens) == choice.message.content
        assert all(len(t.top_logprobs) == 2 for t in choice.logprobs.content)


# -- what vLLM's serving gives ----------------------------------------------------------------------------------

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


@pytest.mark.parametrize("route", ["completions", "chat/completions", "responses"])
def test_a_request_is_cancelled_by_its_id_and_leaves_the_engine_idle(
    server: ServerProcess, route: str
) -> None:
    asked = {"completions": {"prompt": PROMPT}, "responses": {"input": "3 5 7 8 to 24"}}
    cap = "max_output_tokens" if route == "responses" else "max_tokens"
    body = {**asked.get(route, {"messages": CHAT}), cap: 110, "ignore_eos": True}
    body |= {} if route == "responses" else {"n": 128}
    path, key = f"{server.url}/v1/{route}", {"Authorization": f"Bearer {KEY}"}

    def cancelled() -> int:
        """The status of a request that was cancelled as soon as it ran; 200 if it was faster."""
        answers: list[httpx.Response] = []
        headers = {**key, "x-request-id": "mine"}
        asking = threading.Thread(
            target=lambda: answers.append(httpx.post(path, json=body, headers=headers, timeout=60))
        )
        asking.start()
        while httpx.post(f"{path}/mine/cancel", headers=key).status_code == 404 and asking.is_alive():
            time.sleep(0.005)
        asking.join(60)
        return answers[0].status_code

    assert 409 in (cancelled() for _ in range(10))
    wait_idle(server)


# -- search ------------------------------------------------------------------------------------------------------


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
        body = {"search": {**ENDLESS["search"], "budget": {"simulations": 10_000, "seconds": 1.5}}}
        chunks = list(client.completions.create(model=MODEL, prompt=PROMPT, stream=True, extra_body=body))
    assert time.monotonic() - began > 1.4
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")


# -- errors, retries ---------------------------------------------------------------------------------------------


def test_errors_are_the_sdks_own_exceptions(client: openai.OpenAI, server: ServerProcess) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        client.completions.create(model=MODEL, prompt=PROMPT, temperature=3)
    assert (bad.value.param, bad.value.code, bad.value.type) == (
        "temperature",
        "invalid_value",
        "invalid_request_error",
    )
    assert bad.value.request_id
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(model="gpt-4", prompt=PROMPT)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()
    with pytest.raises(openai.PermissionDeniedError):
        client.with_options(api_key="reader-reader-reader").completions.create(model=MODEL, prompt=PROMPT)
    with pytest.raises(openai.BadRequestError, match="widht"):
        client.completions.create(model=MODEL, prompt=PROMPT, extra_body={"search": {"widht": 1}})
    headers = {"Idempotency-Key": "sdk-1"}
    client.completions.create(model=MODEL, prompt=PROMPT, extra_headers=headers, extra_body=SEARCH)
    with pytest.raises(openai.UnprocessableEntityError):
        client.completions.create(model=MODEL, prompt="x", extra_headers=headers, extra_body=SEARCH)


def test_an_engine_survives_every_token_id(client: openai.OpenAI) -> None:
    for body in ({"prompt": [411]}, {"prompt": PROMPT, "logit_bias": {"411": 1}}):
        with pytest.raises(openai.BadRequestError, match="0 to 410"):
            client.completions.create(model=MODEL, **body)  # type: ignore[arg-type]
    assert client.completions.create(model=MODEL, prompt=[410], max_tokens=1).choices


def test_a_clients_timeout_ends_the_search_behind_it(client: openai.OpenAI, server: ServerProcess) -> None:
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.5).completions.create(model=MODEL, prompt=PROMPT, extra_body=ENDLESS)
    wait_idle(server)
    row = newest(server)
    assert (row["status"], row["algorithm"]) == ("cancelled", "best_of_n")


def test_a_stream_that_is_closed_ends_its_engine_work(client: openai.OpenAI, server: ServerProcess) -> None:
    with client.completions.create(
        model=MODEL,
        prompt=PROMPT,
        n=32,
        max_tokens=100,
        stream=True,
        extra_body={"ignore_eos": True},
    ) as stream:
        next(iter(stream))
    wait_idle(server)
    assert 'ramify_completions_total{outcome="cancelled",route="completion"}' in metrics(server)


class Counting(httpx.BaseTransport):
    """A transport that counts the requests sent."""

    def __init__(self) -> None:
        self.inner, self.sent = httpx.HTTPTransport(), 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.sent += 1
        return self.inner.handle_request(request)

    def close(self) -> None:
        self.inner.close()


@pytest.fixture
def counting(server: ServerProcess) -> Iterator[tuple[openai.OpenAI, Counting]]:
    transport = Counting()
    with openai.OpenAI(
        base_url=f"{server.url}/v1",
        api_key=KEY,
        max_retries=2,
        http_client=httpx.Client(transport=transport),
    ) as client:
        yield client, transport


def test_the_sdk_does_not_repeat_what_was_refused(counting: tuple[openai.OpenAI, Counting]) -> None:
    client, transport = counting
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model=MODEL, prompt=PROMPT, n=200)
    assert transport.sent == 1


def test_the_sdk_asks_again_for_the_answer_of_a_running_search(
    counting: tuple[openai.OpenAI, Counting],
) -> None:
    client, transport = counting
    body = {"search": {**ENDLESS["search"], "budget": {"simulations": 10_000, "seconds": 1.0}}}
    headers = {"Idempotency-Key": "sdk-running"}
    answers: list[str] = []

    def ask() -> None:
        answer = client.completions.create(model=MODEL, prompt=PROMPT, extra_body=body, extra_headers=headers)
        answers.append(answer.id)

    both = [threading.Thread(target=ask) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(60)
    assert len(answers) == 2
    assert len(set(answers)) == 1
    assert transport.sent >= 3


# -- models ------------------------------------------------------------------------------------------------------


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    model, *names = client.models.list()
    assert (model.id, model.owned_by) == (MODEL, "ramify")
    assert f"{MODEL}:best-of-n" in [name.id for name in names]
    assert client.models.retrieve(MODEL) == model
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4")


@pytest.mark.anyio
async def test_the_async_client_streams_too(server: ServerProcess) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=CHAT,  # type: ignore[arg-type]
            stream=True,
        )
        text = "".join([c.choices[0].delta.content or "" async for c in stream])
    assert " = " in text


def metrics(server: ServerProcess) -> str:
    return httpx.get(f"{server.url}/metrics", headers={"Authorization": f"Bearer {KEY}"}).text


def wait_idle(server: ServerProcess, seconds: float = 10) -> None:
    """Until nothing runs, neither here nor in the policy's engine."""
    until = time.monotonic() + seconds
    names = ("ramify_searches_running", "ramify_completions_running", "ramify_engine_policy_running")
    while True:
        figures = dict(
            line.rsplit(" ", 1) for line in metrics(server).splitlines() if not line.startswith("#")
        )
        if not any(float(figures[name]) for name in names):
            return
        assert time.monotonic() < until, {name: figures[name] for name in names}
        time.sleep(0.02)


def newest(server: ServerProcess) -> dict[str, object]:
    page = httpx.get(f"{server.url}/v1/trees?limit=1", headers={"Authorization": f"Bearer {KEY}"}).json()
    row: dict[str, object] = page["data"][0]
    return row
