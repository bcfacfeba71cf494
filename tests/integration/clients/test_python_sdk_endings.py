"""OpenAI's Python SDK: errors, retries, cancellations, and clients that leave."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import httpx
import openai
import pytest

from server_process import ServerProcess

from .sdk_requests import CHAT, ENDLESS, KEY, MODEL, PROMPT, SEARCH, metrics, newest, wait_idle

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


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
