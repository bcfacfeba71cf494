"""LoRA adapters as releases on vLLM: activated and rolled back under load, no search lost and none of two releases.

A tiny random policy with tied embeddings and a value head is the base; the adapters are random, and published
with the figures that transformers gives to the weights with the adapter merged in.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from models import write_tiny_models
from ramify.weights import HEAD, Action, Details, Probe, Release, publish
from ramify_trainer.gate.value_scores import end_values
from ramify_trainer.learning.networks import load_judge
from ramify_trainer.learning.value_head import write_head
from server_process import ServerProcess, start

pytestmark = [pytest.mark.vllm, pytest.mark.anyio, pytest.mark.timeout(900)]
HIDDEN, RANK, ALPHA = 64, 4, 8
LAYERS = [
    f"model.layers.{i}.{name}"
    for i in range(2)
    for name in ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")
]
PROMPT = "3 5 7 8 to 24\n"
TEXTS = (((1, 5, 6, 7), (8, 9, 10)), ((1, 20, 30), (40, 50)))
LONG: dict[str, Any] = {
    "prompt": PROMPT,
    "include_tree": True,
    "search": {"algorithm": "mcts", "early_stop": "off", "budget": {"tokens": 1000}},
    "sampling": {"temperature": 1.0},
}
SHORT = LONG | {"search": {"algorithm": "mcts", "budget": {"tokens": 100}}}


@dataclass(frozen=True)
class Written:
    """Releases of one folder, and the whole weights of each."""

    releases: dict[str, Release]
    merged: dict[str, Path]
    """A `policy` and a `value` with whole weights, by release."""


def random_adapter(folder: Path, policy: Path, seed: int) -> Path:
    folder.mkdir(parents=True)
    drawn = torch.Generator().manual_seed(seed)
    weights = load_file(policy / "model.safetensors")
    matrices = {}
    for layer in LAYERS:
        out, into = weights[f"{layer}.weight"].shape
        matrices[f"base_model.model.{layer}.lora_A.weight"] = torch.randn(RANK, into, generator=drawn) / 8
        matrices[f"base_model.model.{layer}.lora_B.weight"] = torch.randn(out, RANK, generator=drawn) / 8
    save_file(matrices, folder / "adapter_model.safetensors")
    targets = sorted({layer.rpartition(".")[2] for layer in LAYERS})
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "target_modules": targets}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def merge(parts: Path, adapter: Path, folder: Path) -> Path:
    """Write the models of `parts` with the adapter added to the policy, in float32."""
    shutil.copytree(parts, folder)
    weights = {name: w.float() for name, w in load_file(parts / "policy/model.safetensors").items()}
    matrices = load_file(adapter / "adapter_model.safetensors")
    for layer in LAYERS:
        a, b = (matrices[f"base_model.model.{layer}.lora_{which}.weight"] for which in "AB")
        weights[f"{layer}.weight"] += ALPHA / RANK * b @ a
    save_file(weights, folder / "policy/model.safetensors", {"format": "pt"})
    return folder


@torch.inference_mode()
def logprobs_of(policy: Any, texts: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
    """The log-probabilities of each text (prompt, continuation), all in one pass, padded at the end."""
    longest = max(len(prompt) + len(text) for prompt, text in texts)
    rows = [[*prompt, *text, *[0] * (longest - len(prompt) - len(text))] for prompt, text in texts]
    logprobs = policy(torch.tensor(rows)).logits.log_softmax(-1)
    return [
        row[len(prompt) - 1 :][: len(text)].gather(1, torch.tensor(text)[:, None])[:, 0].tolist()
        for row, (prompt, text) in zip(logprobs, texts, strict=True)
    ]


def details(parts: Path) -> Details:
    """Describe a release whose whole weights are in `parts`."""
    policy = AutoModelForCausalLM.from_pretrained(parts / "policy", dtype=torch.float32)
    judge = load_judge(parts / "policy", parts / "value")
    probes = tuple(
        Probe(
            prompt=prompt,
            continuation=text,
            logprobs=tuple(logprobs_of(policy, [(prompt, text)])[0]),
            value=end_values(judge, [[*prompt, *text]])[0],
        )
        for prompt, text in TEXTS
    )
    action = Action(stop=("\n",), max_tokens=8)
    return Details(name="tiny", canary=probes, default_action=action, default_max_tokens=32)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """v000001 and v000004: whole weights; v000002 and v000003: adapters on the first of them."""
    folder = tmp_path_factory.mktemp("adapters")
    releases, merged = {}, {}
    for release_id, seed in (("v000001", 1), ("v000004", 4)):
        parts = folder / f"made-{release_id}"
        write_tiny_models(parts, hidden=HIDDEN, layers=2, heads=2, seed=seed)
        shutil.rmtree(parts / "value")
        weight = torch.randn(1, HIDDEN, generator=torch.Generator().manual_seed(1)) / 8
        write_head(parts / "value", {"weight": weight, "bias": torch.zeros(1)})
        merged[release_id] = parts
        models = parts / "policy", parts / "value" / HEAD
        releases[release_id] = publish(folder / "weights", *models, details(parts), release_id=release_id)
    base = releases["v000001"]
    for release_id, seed in (("v000002", 2), ("v000003", 3)):
        adapter = random_adapter(folder / f"adapter-{release_id}", base.policy_path, seed)
        parts = merge(merged[base.id], adapter, folder / f"made-{release_id}")
        merged[release_id] = parts
        releases[release_id] = publish(
            folder / "weights", adapter, None, details(parts), base=base, release_id=release_id
        )
    return Written(releases, merged)


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
