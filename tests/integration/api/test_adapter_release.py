"""LoRA adapters as releases on vLLM: activated and rolled back under load, no search lost and none of two releases.

A tiny random policy with tied embeddings and a value head is the base; the adapters are random, and published
with the figures that transformers gives to the weights with the adapter merged in.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import pytest
import torch
from transformers import AutoModelForCausalLM

from fixtures_adapters import TEXTS, Written, logprobs_of
from server_process import ServerProcess, start

pytestmark = [pytest.mark.vllm, pytest.mark.anyio, pytest.mark.timeout(900)]
PROMPT = "3 5 7 8 to 24\n"
LONG: dict[str, Any] = {
    "prompt": PROMPT,
    "include_tree": True,
    "search": {"algorithm": "mcts", "early_stop": "off", "budget": {"tokens": 1000}},
    "sampling": {"temperature": 1.0},
}
SHORT = LONG | {"search": {"algorithm": "mcts", "budget": {"tokens": 100}}}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, written: Written) -> Iterator[ServerProcess]:
    """A server that starts on an adapter."""
    folder, first = tmp_path_factory.mktemp("serving"), written.releases["v000002"].path
    config = folder / "ramify.toml"
    config.write_text('[engine]\ndtype = "float32"\nadapters = 2\nadapter_rank = 4\nmax_model_len = 256\n')
    flags = ["--release", str(first), "--weights", str(first.parent)]
    server = start(folder, flags, "--config", str(config))
    yield server
    server.stop()


def assert_written_by(reply: dict[str, Any], release: str, policy: Any) -> None:
    """Hold a reply's tree against the release that should have made all of it."""
    tree = reply["tree_document"]
    nodes = tree["nodes"]
    assert reply["status"] == "complete"
    assert {node["release"] for node in nodes[1:]} == {release} == {reply["release"]}
    parents = {node["parent"] for node in nodes[1:]}
    paths = [path_to(node, nodes) for node in nodes[1:] if node["id"] not in parents]
    texts = [(tree["prompt_tokens"], [token for node in path for token in node["tokens"]]) for path in paths]
    for path, expected in zip(paths, logprobs_of(policy, texts), strict=True):
        assert [x for node in path for x in node["logprobs"]] == pytest.approx(expected, abs=1e-3)


def path_to(node: dict[str, Any], nodes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The nodes from below the root to a node."""
    parent = nodes[node["parent"]]
    return [*path_to(parent, nodes), node] if parent["parent"] is not None else [node]


async def searched(http: httpx.AsyncClient, body: dict[str, Any], begun: asyncio.Event) -> dict[str, Any]:
    """Search, set `begun` once it goes on in the server, and return the reply."""
    async with http.stream("POST", "/v1/search", json=body | {"stream": True}) as events:
        data: list[str] = []
        async for line in events.aiter_lines():
            begun.set()
            data += [line] if line.startswith("data: ") else []
    reply: dict[str, Any] = json.loads(data[-1].removeprefix("data: "))
    return reply


def policy_of(written: Written, release: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(written.merged[release] / "policy", dtype=torch.float32)


async def test_adapters_are_activated_and_rolled_back_under_load(
    http: httpx.AsyncClient, admin: httpx.AsyncClient, written: Written
) -> None:
    searches: dict[str, list[asyncio.Task[dict[str, Any]]]] = {}

    async def load(release: str) -> None:
        """Have three more searches run under a release."""
        began = [asyncio.Event() for _ in range(3)]
        searches.setdefault(release, []).extend(
            asyncio.create_task(searched(http, LONG | {"seed": seed}, begun))
            for seed, begun in enumerate(began)
        )
        for begun in began:
            await begun.wait()

    async def changed(route: str, before: str, to: str) -> None:
        """Activate or roll back: nothing is drained for it, and searches of the release before go on."""
        done = await admin.post(f"/admin/releases/{route}", json={})
        assert done.status_code == 200, done.text
        assert (done.json()["previous"], done.json()["release"]) == (before, to)
        assert done.json()["seconds"]["drain"] == 0
        assert done.json()["canary"]["distinguishable"] == len(TEXTS)
        assert not all(search.done() for search in searches[before])

    await load("v000002")
    await changed("v000003/activate", "v000002", "v000003")
    await load("v000003")
    await changed("rollback", "v000003", "v000002")
    plain = await http.post("/v1/completions", json={"model": "tiny", "prompt": PROMPT, "max_tokens": 4})
    assert plain.json()["system_fingerprint"] == "v000002"
    await load("v000002")
    await changed("v000001/activate", "v000002", "v000001")
    await load("v000001")
    for release, asked in searches.items():
        policy = policy_of(written, release)
        for reply in await asyncio.gather(*asked):
            assert_written_by(reply, release, policy)


async def test_whole_weights_take_the_place_of_an_adapter_and_its_base_and_give_it_back(
    http: httpx.AsyncClient, admin: httpx.AsyncClient, written: Written
) -> None:
    for route, release in (
        ("v000003/activate", "v000003"),
        ("v000004/activate", "v000004"),
        ("rollback", "v000003"),
    ):
        done = await admin.post(f"/admin/releases/{route}", json={})
        assert done.status_code == 200, done.text
        reply = await http.post("/v1/search", json=SHORT)
        assert_written_by(reply.json(), release, policy_of(written, release))
