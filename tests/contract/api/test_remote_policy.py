"""A policy on another server: what is checked at the start, how it is searched, and what happens when it goes away."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from fakes_vllm import LENGTH, NAME, SHARES, FakeVllm, write_policy
from models import WORDS
from ramify.api.app import admin_application, application
from ramify.api.context import Context, assemble
from ramify.engines import (
    EngineError,
    Engines,
    EngineStartFailed,
    RequestRefused,
    SampleParams,
    SampleRequest,
    Tokenizer,
)
from ramify.engines import remote_engine as module
from ramify.search.algorithms import ALGORITHMS
from ramify.search.protocols import EngineDead, SampleAborted
from ramify.service.serving import engine_config
from ramify.settings import BadSettings, Settings, load
from ramify.treelog import TreeLog

from .openai_asks import frames
from .world import serving, until

pytestmark = pytest.mark.anyio
SECRET = "s3cret-key-of-the-policy"
ONE, TWO, EOS = (WORDS.index(word) for word in (" 1", " 2", "<eos>"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer(folder)


@pytest.fixture
def vllm(tokenizer: Tokenizer) -> FakeVllm:
    return FakeVllm(tokenizer)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT", 0.0)


def settings_for(folder: Path, url: str, log: Path | None = None, **options: Any) -> Settings:
    told = {"url": url, **options}
    return load(policy=str(folder), policy_server=told, log=f"sqlite:///{log or folder}/trees.db")


@asynccontextmanager
async def started(folder: Path, vllm: FakeVllm, **options: Any) -> AsyncIterator[Engines]:
    async with (
        serving(vllm.app()) as url,
        await Engines.start(engine_config(settings_for(folder, url, **options))) as engines,
    ):
        vllm.bodies.clear()
        yield engines


@asynccontextmanager
async def a_server(
    folder: Path, vllm: FakeVllm, log: Path, **options: Any
) -> AsyncIterator[tuple[Context, httpx.AsyncClient]]:
    """A whole server of ours, on `vllm`."""
    async with serving(vllm.app()) as url:
        settings = settings_for(folder, url, log, **options)
        async with (
            await Engines.start(engine_config(settings)) as engines,
            await TreeLog.open(settings.log) as trees,
        ):
            context = assemble(settings, engines, trees)
            transport = httpx.ASGITransport(application(context), raise_app_exceptions=False)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://127.0.0.1:8000", timeout=30
            ) as http:
                yield context, http
            await context.searches.drain(0)


def one(prompt: list[int], seed: int | None = 1, **params: Any) -> SampleRequest:
    return SampleRequest(prompt, SampleParams(**{"max_tokens": 8, "temperature": 1.0, **params}), seed)


# -- draws ------------------------------------------------------------------------------------------------------------


async def test_a_draw_has_its_token_ids_and_the_log_probabilities_of_what_it_was_drawn_from(
    folder: Path, vllm: FakeVllm
) -> None:
    async with started(folder, vllm) as engines:
        policy = engines.by_role["policy"]
        requests = [one([5, 6], seed, temperature=0.5, stop_tokens=(TWO,)) for seed in (1, 1, 2)]
        first, again, _ = await policy.generate(requests)
        assert (first.token_ids, first.logprobs) == (again.token_ids, again.logprobs)
        total = sum(share**2 for share in SHARES.values())
        expected = [math.log(SHARES[WORDS[token]] ** 2 / total) for token in first.token_ids]
        assert first.logprobs == pytest.approx(expected)
        assert first.stopped == (first.token_ids[-1] in (TWO, EOS))
        body = vllm.bodies[0]
        assert (body["model"], body["prompt"], body["seed"], body["stop_token_ids"]) == (
            NAME,
            [5, 6],
            1,
            [TWO],
        )
        assert (body["repetition_penalty"], body["min_p"], body["top_p"], body["top_k"]) == (1.0, 0.0, 1.0, 0)
        assert policy.unfinished == 0


async def test_the_likeliest_next_tokens_are_ranked_whichever_was_drawn(folder: Path, vllm: FakeVllm) -> None:
    async with started(folder, vllm) as engines:
        for seed in range(4):
            (drawn,) = await engines.by_role["policy"].generate([one([5], seed, max_tokens=1, top=2)])
            assert drawn.top == [(ONE, pytest.approx(math.log(0.4))), (TWO, pytest.approx(math.log(0.3)))]


async def test_a_cancelled_draw_closes_its_connection_and_counts_what_had_come(
    folder: Path, vllm: FakeVllm
) -> None:
    async with started(folder, vllm) as engines:
        vllm.gate, before = asyncio.Event(), engines.by_role["policy"].stats.steps
        requests = [one([5], seed, max_tokens=50, ignore_eos=True) for seed in range(3)]
        work = asyncio.create_task(engines.by_role["policy"].generate(requests))
        await until(lambda: engines.by_role["policy"].stats.steps == before + 3)
        work.cancel()
        with pytest.raises(SampleAborted) as aborted:
            await work
        assert aborted.value.tokens == 6
        await until(lambda: vllm.aborted == 3)
        assert engines.by_role["policy"].unfinished == 0


async def test_a_draw_that_can_be_repeated_is_tried_again_and_no_other(folder: Path, vllm: FakeVllm) -> None:
    async with started(folder, vllm, retries=1) as engines:
        policy = engines.by_role["policy"]
        (expected,) = await policy.generate([one([5], ignore_eos=True)])
        for fault in ("away", "breaks"):
            setattr(vllm, fault, 1)
            assert (await policy.generate([one([5], ignore_eos=True)])) == [expected]
        vllm.away = 1
        with pytest.raises(EngineDead, match=r"127\.0\.0\.1:\d+ answered 503: no engine"):
            await policy.generate([one([5], None)])
        vllm.away = 2
        with pytest.raises(EngineDead):
            await policy.generate([one([5])])
        assert vllm.away == 0
        tried = len(vllm.bodies)
        with pytest.raises(RequestRefused, match="answered 400: Token id is out of vocabulary") as refused:
            await policy.generate([one([len(WORDS)])])
        assert (refused.value.param, len(vllm.bodies)) == ("prompt", tried + 1)


async def test_a_server_that_sends_nothing_is_waited_for_no_longer_than_the_settings_say(
    folder: Path, vllm: FakeVllm
) -> None:
    async with started(folder, vllm, seconds=0.3) as engines:
        vllm.gate = asyncio.Event()
        with pytest.raises(EngineDead, match=r"sent nothing in the time that it has"):
            await engines.by_role["policy"].generate([one([5], ignore_eos=True)])
        await until(lambda: vllm.drawing == 0)


async def test_what_an_engine_at_home_can_is_refused_by_name(folder: Path, vllm: FakeVllm) -> None:
    async with started(folder, vllm) as engines:
        with pytest.raises(EngineError, match=r"on another server, .*: its weights are replaced"):
            async with engines.exclusive(1):
                pass
        with pytest.raises(RuntimeError, match="prefix cache of the policy's server"):
            await engines.reset_prefix_caches()
        assert engines.memory() == [
            f"policy: {NAME} at {engines.by_role['policy'].server.place}, on another server"
        ]
        assert (engines.pids, engines.max_model_len) == ([], LENGTH)


# -- the start --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "options", "problem"),
    [
        ({"raw": True}, {}, r"start it with --logprobs-mode processed_logprobs"),
        (
            {"as_ids": False},
            {},
            r"gives no token ids with their log-probabilities: serve the model with vLLM",
        ),
        ({"names": ("a", "b")}, {}, r"serves a, b: name one \(setting policy_server\.served\)"),
        ({}, {"served": "c"}, r"serves words: name one"),
        ({"away": 1}, {}, r"answered 503: no engine; check the setting policy_server\.url"),
        ({"key": SECRET}, {"key": "another-key"}, r"answered 401: Unauthorized: Bearer \(key\); check"),
    ],
)
async def test_a_server_that_cannot_be_searched_is_refused_at_the_start_with_what_to_do(
    folder: Path, vllm: FakeVllm, fault: dict[str, Any], options: dict[str, Any], problem: str
) -> None:
    for name, value in fault.items():
        setattr(vllm, name, value)
    with pytest.raises(EngineStartFailed, match=problem) as refused:
        async with started(folder, vllm, **options):
            pass
    assert "another-key" not in str(refused.value)


async def test_a_server_with_another_tokenizer_is_refused(
    folder: Path, vllm: FakeVllm, monkeypatch: Any
) -> None:
    monkeypatch.setattr(vllm, "tokenizer", SplitWords())
    with pytest.raises(
        EngineStartFailed, match=r"has another tokenizer than .*: give the directory of the model"
    ):
        async with started(folder, vllm):
            pass


class SplitWords:
    def encode_continuation(self, text: str) -> list[int]:
        return list(range(len(text.split())))


async def test_nobody_at_the_address_is_said(folder: Path) -> None:
    with pytest.raises(EngineStartFailed, match=r"127\.0\.0\.1:9 cannot be reached \(ConnectError\); check"):
        await Engines.start(engine_config(settings_for(folder, "http://127.0.0.1:9")))


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({"policy_server": {"url": "http://a"}}, "policy_server.url needs policy"),
        ({"policy_server": {"served": "x"}}, "served has no effect without url"),
        ({"policy": "p", "policy_server": {"url": "http://a"}, "value_head": "h"}, "value_head stands on the trunk"),
        ({"policy": "p", "policy_server": {"url": "http://a"}, "engine": {"tool_parser": "hermes"}},
         "engine.tool_parser has no effect on a policy elsewhere"),
        ({"policy": "p", "policy_server": {"url": "http://a?key=x"}}, "policy_server.url"),
        ({"policy": "p", "policy_server": {"url": "http://a", "key": "k", "key_file": "f"}}, "key or key_file"),
    ],
)  # fmt: skip
def test_settings_that_cannot_go_together_are_named(flags: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadSettings, match=problem):
        load(**flags)


# -- the whole server -------------------------------------------------------------------------------------------------


async def test_every_algorithm_searches_and_the_tree_has_exact_tokens(
    folder: Path, vllm: FakeVllm, tmp_path: Path
) -> None:
    async with a_server(folder, vllm, tmp_path) as (context, http):
        for name in ALGORITHMS:
            asked = {
                "prompt": " 3",
                "search": {"algorithm": name, "budget": {"tokens": 60}},
                "include_tree": True,
            }
            if name == "mcts":
                asked["search"] |= {"expand": "step", "action": {"kind": "token"}}
            reply = await http.post("/v1/search", json={**asked, "sampling": {"max_tokens": 12}, "seed": 1})
            assert reply.status_code == 200, reply.text
            nodes = reply.json()["tree_document"]["nodes"][1:]
            assert nodes
            for node in nodes:
                assert {node["release"]} == {"remote"}
                expected = [math.log(SHARES[WORDS[token]]) for token in node["tokens"]]
                assert node["logprobs"] == pytest.approx(expected)
        assert len(await context.log.list(limit=100)) == len(ALGORITHMS)


async def test_it_says_that_the_policy_is_elsewhere(
    folder: Path, vllm: FakeVllm, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "ramify")
    vllm.key = SECRET
    async with a_server(folder, vllm, tmp_path, key=SECRET) as (context, http):
        assert (await http.get("/readyz")).status_code == 200
        assert (await http.get("/version")).json()["remote"] is True
        model = (await http.get("/v1/models")).json()["data"][0]
        assert (model["remote"], model["root"], model["max_model_len"]) == (True, "remote", LENGTH)
        assert 'remote="true"' in (await http.get("/metrics")).text
        transport = httpx.ASGITransport(admin_application(context, None))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as admin:
            refused = await admin.post("/admin/releases/v000001/activate", json={})
        assert refused.status_code == 409
        assert "the policy is on another server" in refused.json()["error"]["message"]
    assert SECRET not in caplog.text


async def test_when_its_server_is_away_searches_fail_and_readiness_says_so_until_it_is_back(
    folder: Path, vllm: FakeVllm, tmp_path: Path
) -> None:
    async with a_server(folder, vllm, tmp_path, retries=0) as (context, http):
        context.readiness.settings = context.readiness.settings.model_copy(update={"cache_seconds": 0.0})
        vllm.away = 1_000
        reply = await http.post("/v1/search", json={"prompt": " 3"})
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "engine_unavailable")
        assert "answered 503" in reply.json()["error"]["message"]
        (entry,) = await context.log.list(limit=10)
        assert entry.status == "engine_dead"
        unready = await http.get("/readyz")
        assert (unready.status_code, unready.json()["error"]["message"]) == (
            503,
            "not ready: the policy's server is away",
        )
        assert (await http.post("/v1/completions", json={"prompt": " 3"})).status_code == 503
        vllm.away = 0
        assert (await http.get("/readyz")).status_code == 200
        assert (await http.post("/v1/search", json={"prompt": " 3"})).status_code == 200
        assert not context.engines.dead.is_set()


async def test_openais_routes_are_answered_by_its_server(
    folder: Path, vllm: FakeVllm, tmp_path: Path
) -> None:
    async with a_server(folder, vllm, tmp_path) as (_, http):
        text = (await http.post("/v1/completions", json={"prompt": " 3", "max_tokens": 5, "seed": 1})).json()
        assert (text["model"], text["usage"]["prompt_tokens"]) == (folder.name, 1)
        assert vllm.bodies[-1]["model"] == NAME
        asked = {"messages": [{"role": "user", "content": " 3"}], "max_tokens": 5}
        chat = (await http.post("/v1/chat/completions", json=asked)).json()
        assert chat["choices"][0]["message"]["role"] == "assistant"
        sent = frames((await http.post("/v1/chat/completions", json={**asked, "stream": True})).text)
        assert sent[-1]["choices"][0]["finish_reason"] in ("stop", "length")
        tokens = (await http.post("/tokenize", json={"prompt": " 1"})).json()["tokens"]
        assert tokens[-1] == ONE
        assert (await http.post("/detokenize", json={"tokens": tokens[1:]})).json()["prompt"] == " 1"
