"""A policy on vLLM's own server beside the same policy on an engine at home: the same draws, trees and answers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from fixtures_engines import START_SECONDS, LiveEngines, until
from models import write_chat_policy
from ramify.engines import (
    EngineConfig,
    EngineOptions,
    EngineStartFailed,
    PolicyServerOptions,
    SampleParams,
    Serving,
)
from ramify.engines.ports import RawSample, SampleRequest
from ramify.search import Action, BudgetLimits, Sampling, Verdict, search
from ramify.search.protocols import SampleAborted
from ramify.search.tree import Tree
from vllm_process import KEY, served

pytestmark = [pytest.mark.remote, pytest.mark.timeout(2 * START_SECONDS)]

OPTIONS = EngineOptions(dtype="float32", compile=False, policy_kv_bytes=1 << 26, max_model_len=512)
CLOSE = 0.05
FLAGS = ("--logprobs-mode", "processed_logprobs", "--max-logprobs", "-1", "--served-model-name", "tiny")
CHAT = {"messages": [{"role": "user", "content": "1+2?"}]}


class Both:
    """The policy at home and elsewhere."""

    def __init__(self, policy: Path, address: str) -> None:
        self.address = address
        server = PolicyServerOptions(url=f"{address}/v1", key=KEY)
        serving = Serving(value=None)
        self.home = LiveEngines(EngineConfig(policy, serving=serving, options=OPTIONS))
        self.away = LiveEngines(EngineConfig(policy, serving=serving, server=server))

    def draws(self, *requests: SampleRequest) -> tuple[list[RawSample], list[RawSample]]:
        at_home, away = (
            live.run(live.engines.by_role["policy"].generate(requests)) for live in (self.home, self.away)
        )
        return at_home, away

    def close(self) -> None:
        self.home.close()
        self.away.close()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("remote")
    policy = write_chat_policy(folder / "policy")
    with served(policy, folder / "log", *FLAGS) as address:
        both = Both(policy, address)
        try:
            yield both
        finally:
            both.close()


def same(at_home: Sequence[RawSample], away: Sequence[RawSample]) -> None:
    for one, other in zip(at_home, away, strict=True):
        assert (one.token_ids, one.stopped) == (other.token_ids, other.stopped)
        assert other.logprobs == pytest.approx(one.logprobs, abs=CLOSE)
        assert dict(other.top) == pytest.approx(dict(one.top), abs=CLOSE)


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 1.0},
        {"temperature": 0.7, "top_p": 0.9, "top_k": 20},
        {"temperature": 0.0},
        {"temperature": 1.0, "stop_tokens": tuple(range(40, 60))},
        {"temperature": 1.0, "stop": ("a", "bc")},
        {"temperature": 1.0, "top": 5, "ignore_eos": True},
        {"temperature": 1.0, "allowed": (40, 41), "top": 2},
    ],
)
def test_a_draw_is_the_same_by_its_seed(both: Both, params: dict[str, Any]) -> None:
    prompt = both.home.engines.tokenizer.encode("1 + 2 = ")
    chosen = SampleParams(max_tokens=40, **params)
    same(*both.draws(*(SampleRequest(prompt, chosen, seed) for seed in range(6))))


class Letters:
    """A task that tells answers apart by their text; right is what holds an a."""

    async def final(self, text: str) -> str:
        return text

    async def grade(self, text: str) -> Verdict:
        return Verdict(float("a" in text), "holds an a or not")


@pytest.mark.parametrize("algorithm", ["mcts", "beam"])
def test_a_tree_is_the_same_by_its_seed(both: Both, algorithm: str) -> None:
    async def grown(live: LiveEngines) -> Tree:
        return await search(
            live.engines.tokenizer.encode("1 + 2 = "),
            live.engines.policy,
            None,
            Letters(),
            algorithm=algorithm,
            grader="verifier",
            schedule="waves",
            action=Action("chunk", max_tokens=4),
            sampling=Sampling(max_tokens=16),
            budget=BudgetLimits(tokens=400),
            seed=7,
        )

    at_home, away = (live.run(grown(live)) for live in (both.home, both.away))
    assert len(at_home.nodes) > 10
    assert [node.tokens for node in at_home.nodes] == [node.tokens for node in away.nodes]
    for one, other in zip(at_home.nodes, away.nodes, strict=True):
        assert other.logprobs == pytest.approx(one.logprobs, abs=CLOSE)


def test_a_cancelled_draw_is_aborted_there(both: Both) -> None:
    policy = both.away.engines.by_role["policy"]
    params = SampleParams(max_tokens=480, temperature=1.0, ignore_eos=True)

    async def leave() -> int:
        before = policy.stats.steps
        work = asyncio.create_task(policy.generate([SampleRequest([5], params, seed) for seed in range(4)]))
        await until(lambda: policy.stats.steps >= before + 4)
        work.cancel()
        with pytest.raises(SampleAborted) as aborted:
            await work
        return aborted.value.tokens

    assert 0 < both.away.run(leave()) < 4 * 480
    for _ in range(100):
        text = httpx.get(f"{both.address}/metrics").text
        (running,) = re.findall(r"^vllm:num_requests_running\{.*\} (\S+)$", text, re.M)
        if float(running) == 0:
            return
        both.away.run(asyncio.sleep(0.05))
    raise AssertionError("the draws went on")


def test_openais_routes_answer_alike(both: Both) -> None:
    bodies: list[dict[str, Any]] = [
        {"prompt": [5, 6], "max_tokens": 8, "seed": 3, "request_id": "a"},
        {**CHAT, "max_completion_tokens": 8, "seed": 3, "request_id": "b"},
        {"input": "1+2?", "max_output_tokens": 8, "temperature": 0, "request_id": "resp_c"},
    ]

    async def asked(live: LiveEngines) -> list[Any]:
        plain = live.engines.plain
        found: list[Any] = []
        for body in bodies:
            reply = await plain.complete(body, 1)
            found.append((reply["id"], reply.get("choices") or reply["output"][0]["content"]))
            kinds = [chunk async for chunk in plain.stream(body, 1)]
            found.append("".join(map(_written, kinds)))
            if "prompt" not in body:
                found.append(await plain.prompt_tokens(body))
        found += [await plain.tokenize({"prompt": "1+2"}), await plain.detokenize({"tokens": [5, 6]})]
        return found

    assert both.away.run(asked(both.away)) == both.home.run(asked(both.home))


def _written(chunk: dict[str, Any]) -> str:
    if chunk.get("type") == "response.output_text.delta":
        return str(chunk["delta"])
    return "".join(
        one.get("text") or one.get("delta", {}).get("content") or "" for one in chunk.get("choices", ())
    )


def test_raw_log_probabilities_are_refused(tmp_path: Path) -> None:
    policy = write_chat_policy(tmp_path / "policy")
    with served(policy, tmp_path / "log") as address:
        server = PolicyServerOptions(url=address, key=KEY)
        with pytest.raises(EngineStartFailed, match="start it with --logprobs-mode processed_logprobs"):
            LiveEngines(EngineConfig(policy, server=server))
