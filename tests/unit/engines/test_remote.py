"""A scorer on another server: what is sent, what is believed, and how long it is waited for."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from models import write_chat_policy
from ramify.engines import EngineError, EngineStartFailed, ScorerOptions, ScorerUnreachable
from ramify.engines import remote as module
from ramify.engines.remote import RemoteScorer, read_remote
from ramify.engines.scorer import sigmoid
from ramify.engines.tokenizer import Tokenizer
from ramify.search.records import State
from scorer_models import write_process_reward_model

URL = "http://judge.test/judge"
SECRET = "s3cret-key-of-the-scorer"
Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer(write_chat_policy(tmp_path_factory.mktemp("policy")))


def answers(policy: Tokenizer, *steps: str) -> list[State]:
    """An answer after each of its steps."""
    tokens = policy.encode_chat([{"role": "user", "content": "1+2?"}])
    ends, found = [len(tokens)], []
    for step in steps:
        tokens = [*tokens, *policy.encode_continuation(step)]
        ends.append(len(tokens))
        found.append(State(tokens, ends))
    return found


def values(policy: Tokenizer, states: Sequence[State], handler: Handler, **options: Any) -> list[float]:
    chosen = ScorerOptions.model_validate({"kind": "http", "url": URL, **options})

    async def go() -> list[float]:
        transport = httpx.MockTransport(handler)
        scorer = RemoteScorer(chosen, read_remote(chosen, policy), lambda: "v000007", transport)
        try:
            scores = await scorer.score(states)
        finally:
            await scorer.close()
        assert {score.release for score in scores} <= {"v000007"}
        return [score.value for score in scores]

    return asyncio.run(go())


def test_an_endpoint_is_sent_the_messages_and_the_steps_and_gives_values(policy: Tokenizer) -> None:
    def judge(request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == f"Bearer {SECRET}"
        assert json.loads(request.content) == {
            "model": "mine",
            "answers": [
                {"messages": [{"role": "user", "content": "1+2?"}], "steps": steps}
                for steps in (["so\n"], ["so\n", "3"])
            ],
        }
        return httpx.Response(200, json={"values": [0.25, 1]})

    found = values(policy, answers(policy, "so\n", "3"), judge, key=SECRET, served="mine")
    assert found == pytest.approx([0.25, 1.0])


def test_logits_of_a_classifier_are_the_log_odds_of_the_label_named(policy: Tokenizer) -> None:
    def classify(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        assert body["use_activation"] is False
        data = [{"index": i, "probs": [0.5, float(len(ids)), -0.5]} for i, ids in enumerate(body["input"])]
        return httpx.Response(200, json={"data": data[::-1]})

    states = answers(policy, "a", "bc")
    expected = [math.exp(n) / (math.exp(n) + math.exp(0.5) + math.exp(-0.5)) for n in map(len, states)]
    assert values(policy, states, classify, api="classify", label="1") == pytest.approx(expected)
    with pytest.raises(EngineError, match=r"has 3 labels: say which means right"):
        values(policy, states, classify, api="classify")
    with pytest.raises(EngineError, match=r"has 3 labels, and scorer\.label is 7"):
        values(policy, states, classify, api="classify", label="7")


@pytest.mark.parametrize("at", ["tokens", "tags"])
def test_all_steps_of_a_path_are_one_input_whether_tokens_or_tags_are_judged(
    policy: Tokenizer, tmp_path: Path, at: str
) -> None:
    write_process_reward_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()  # tokenizer and config.json are enough
    tag = Tokenizer(tmp_path).encode_continuation("<extra_0>")[0]

    skipped = 0

    def pool(request: httpx.Request) -> httpx.Response:
        (ids,) = json.loads(request.content)["input"]
        places = [i for i, token in enumerate(ids) if at == "tokens" or token == tag][skipped:]
        return httpx.Response(200, json={"data": [{"index": 0, "data": [[0.0, i / 100] for i in places]}]})

    states = answers(policy, "so\n\n", "3\n\n", "3!")
    options = {"api": "pooling", "model": tmp_path}
    chosen = ScorerOptions.model_validate({"kind": "http", "url": URL, **options})
    write = read_remote(chosen, policy).write
    assert write is not None
    expected = [sigmoid((len(one) - 1) / 100) for one in write(states)]
    assert values(policy, states, pool, **options) == pytest.approx(expected)
    skipped = 1
    with pytest.raises(EngineError, match=r"judge\.test gave \d+ judgements for \d+ tokens"):
        values(policy, states[-1:], pool, **options)


def test_what_may_pass_is_tried_again_and_what_may_not_is_not(
    policy: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT", 0.0)
    tries: list[int] = []

    def at_first(*statuses: int) -> Handler:
        tries.clear()
        left = list(statuses)

        def judge(request: httpx.Request) -> httpx.Response:
            tries.append(1)
            if not left:
                return httpx.Response(200, json={"values": [0.5]})
            if (status := left.pop(0)) == 0:
                raise httpx.ConnectError("refused")
            return httpx.Response(status, headers={"location": "http://elsewhere.test/"})

        return judge

    states = answers(policy, "3")
    assert values(policy, states, at_first(503, 0)) == pytest.approx([0.5])
    assert len(tries) == 3
    with pytest.raises(ScorerUnreachable, match=r"judge\.test answered 429, 2 times"):
        values(policy, states, at_first(429, 429, 429), retries=1)
    for status in (302, 401, 404):
        with pytest.raises(EngineError, match=rf"judge\.test answered {status}$"):
            values(policy, states, at_first(status))
        assert len(tries) == 1


def test_a_server_is_left_alone_as_long_as_it_asks_or_given_up_at_once(policy: Tokenizer) -> None:
    asked: list[float] = []

    def busy_until(seconds: str) -> Handler:
        def judge(request: httpx.Request) -> httpx.Response:
            asked.append(time.monotonic())
            if len(asked) > 1:
                return httpx.Response(200, json={"values": [0.5]})
            return httpx.Response(503, headers={"retry-after": seconds})

        return judge

    assert values(policy, answers(policy, "3"), busy_until("1")) == pytest.approx([0.5])
    assert asked[1] - asked[0] >= 1
    asked.clear()
    with pytest.raises(ScorerUnreachable, match=r"answered 503, 1 times"):
        values(policy, answers(policy, "3"), busy_until("3600"))


def test_a_part_that_fails_ends_the_others(policy: Tokenizer) -> None:
    ended: list[int] = []

    async def judge(request: httpx.Request) -> httpx.Response:
        if len(json.loads(request.content)["answers"]) < module.AT_ONCE:
            return httpx.Response(401)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)
        raise AssertionError

    async def go() -> None:
        chosen = ScorerOptions(kind="http", url=URL)
        transport = httpx.MockTransport(judge)
        scorer = RemoteScorer(chosen, read_remote(chosen, policy), lambda: "v000007", transport)
        with pytest.raises(EngineError, match="answered 401"):
            await scorer.score(answers(policy, *"a" * (module.AT_ONCE + 1)))
        assert ended == [1]
        await scorer.close()

    asyncio.run(go())


@pytest.mark.parametrize(
    "reply",
    [
        b"<html>",
        b"[]",
        b"{}",
        b'{"values": [2]}',
        b'{"values": [NaN]}',
        b'{"values": [0.1, 0.2]}',
        b'{"values": []}',
    ],
)
def test_a_reply_that_holds_no_judgement_is_an_error(policy: Tokenizer, reply: bytes) -> None:
    with pytest.raises(EngineError, match=r"scorer at judge\.test"):
        values(policy, answers(policy, "3"), lambda request: httpx.Response(200, content=reply))


def test_a_reply_without_end_is_not_read_to_its_end(
    policy: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 100)
    with pytest.raises(EngineError, match="more than 100 bytes"):
        values(policy, answers(policy, "3"), lambda request: httpx.Response(200, content=b" " * 101))


def test_nobody_waits_longer_than_the_deadline_nor_sends_more_at_once_than_allowed(policy: Tokenizer) -> None:
    at_once = most = 0

    async def silent(request: httpx.Request) -> httpx.Response:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.Event().wait()
        raise AssertionError

    states = answers(policy, *"a" * 200)  # four requests of 64 answers at most
    with pytest.raises(ScorerUnreachable, match=r"did not answer within 1 s"):
        values(policy, states, silent, seconds=1, parallel=2)  # type: ignore[arg-type]
    assert most == 2


def test_the_key_is_in_no_error_and_no_log(
    policy: Tokenizer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    file = tmp_path / "key"
    file.write_text(SECRET + "\n")
    for given in ({"key": SECRET}, {"key_file": file}):
        with pytest.raises(EngineError) as caught:
            values(policy, answers(policy, "3"), lambda request: httpx.Response(401), **given)
        assert SECRET not in str(caught.value)
    assert SECRET not in caplog.text
    assert SECRET not in repr(ScorerOptions(kind="http", url=URL, key=SECRET))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "good", "api": "classify"}, "is a name: give its number"),
        ({"format": "chat", "api": "classify"}, "needs the model's tokenizer"),
        ({"model": "nowhere", "api": "pooling"}, "nowhere does not exist"),
        ({"url": "http://judge.test:port/"}, "is no address: Invalid port"),
        ({"key": "schlüssel"}, "scorer.key must hold one key of printable ASCII"),
        ({"key_file": "nowhere"}, "scorer.key_file nowhere cannot be read"),
    ],
)
def test_what_needs_the_models_files_says_so(
    policy: Tokenizer, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(EngineStartFailed, match=message):
        read_remote(ScorerOptions.model_validate({"kind": "http", "url": URL, **options}), policy)


@pytest.mark.parametrize("content", ["", "\n", "two\nlines", "a key"])
def test_a_file_that_does_not_hold_one_key_is_refused(
    policy: Tokenizer, tmp_path: Path, content: str
) -> None:
    file = tmp_path / "key"
    file.write_text(content)
    with pytest.raises(EngineStartFailed, match=r"key must hold one key"):
        read_remote(ScorerOptions(kind="http", url=URL, key_file=file), policy)


def test_a_reply_that_is_not_compressed_as_it_says_is_an_error_that_names_the_server_with_its_port(
    policy: Tokenizer,
) -> None:
    def judge(request: httpx.Request) -> httpx.Response:
        return httpx.Response(
            200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(b"no gzip at all")
        )

    with pytest.raises(EngineError, match=r"judge\.test:8123 is not valid JSON"):
        values(policy, answers(policy, "3"), judge, url="http://judge.test:8123/judge")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "kind http needs url"),
        ({"url": "http://user:pass@judge.test/"}, "url"),
        ({"url": "http://judge.test/?token=1"}, "url"),
        ({"url": URL, "label": "1"}, "label has no effect on api values"),
        ({"url": URL, "key": SECRET, "key_file": "k"}, "give key or key_file"),
        ({"kind": "judge", "url": URL}, "url has no effect on kind judge"),
        ({"kind": None, "url": URL}, "url has no effect without kind: model, judge or http"),
        *(
            ({"url": URL, "api": "pooling", field: "x"}, f"{field} has no effect without model")
            for field in ("system", "split", "tag", "good", "bad")
        ),
    ],
)
def test_settings_that_say_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScorerOptions.model_validate({"kind": "http", **options})
