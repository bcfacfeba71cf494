"""Several policies on real vLLM: the base, an adapter on it and the base with other words draw for one search."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import torch
from transformers import AutoModelForCausalLM

from fixtures_adapters import Written, logprobs_of
from ramify.search.codec import tree_from_dict
from ramify.search.tree import Node, Tree
from server_process import ServerProcess, start

pytestmark = [pytest.mark.vllm, pytest.mark.anyio, pytest.mark.timeout(900), pytest.mark.slow]
PROMPT = "3 5 7 8 to 24\n"
NAMES = ["policy", "adapted", "worded"]
SETTINGS = """
[engine]
dtype = "float32"
adapters = 2
adapter_rank = 4
max_model_len = 256
[policies.adapted]
release = "{adapter}"
[policies.worded]
before = "1 2 3\\n"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, written: Written) -> Iterator[ServerProcess]:
    """A server on whole weights, with an adapter and other words beside them."""
    folder, base = tmp_path_factory.mktemp("serving"), written.releases["v000001"].path
    config = folder / "ramify.toml"
    config.write_text(SETTINGS.format(adapter=written.releases["v000002"].path))
    server = start(folder, ["--release", str(base), "--weights", str(base.parent)], "--config", str(config))
    yield server
    server.stop()


def context_of(tree: Tree, node: Node) -> tuple[int, ...]:
    """The token ids that a node's policy was given when it drew it."""
    prompt = (tree.prompts or {}).get(str(node.policy), tree.prompt_tokens)
    above = tree.nodes[node.parent or 0]
    return prompt + tree.answer_tokens(above)


async def test_each_node_names_its_policy_and_has_its_log_probabilities(
    http: httpx.AsyncClient,
    written: Written,
) -> None:
    body: dict[str, Any] = {
        "prompt": PROMPT,
        "stream": True,
        "stream_options": {"nodes": True},
        "include_tree": True,
        "seed": 1,
        "search": {"algorithm": "mcts", "policies": NAMES, "early_stop": "off", "budget": {"tokens": 600}},
        "sampling": {"temperature": 1.0, "max_tokens": 24},
    }
    answer = await http.post("/v1/search", json=body)
    assert answer.status_code == 200, answer.text
    events = [
        json.loads(line.removeprefix("data: "))
        for line in answer.text.splitlines()
        if line.startswith("data: ")
    ]
    told = {node["policy"] for event in events for node in event.get("new_nodes") or () if node["id"]}
    tree = tree_from_dict(events[-1]["tree_document"])
    assert tree.status == "complete", tree.error
    assert told == {node.policy for node in tree.nodes[1:]} == set(NAMES)
    assert set(events[-1]["usage"]["by_policy"]) == set(NAMES)
    weights = {"policy": "v000001", "adapted": "v000002", "worded": "v000001"}
    for name, release in weights.items():
        drawn = [node for node in tree.nodes[1:] if node.policy == name]
        assert {node.release for node in drawn} == {release}
        model = AutoModelForCausalLM.from_pretrained(written.merged[release] / "policy", dtype=torch.float32)
        expected = logprobs_of(model, [(context_of(tree, node), node.tokens) for node in drawn])
        for node, figures in zip(drawn, expected, strict=True):
            assert list(node.logprobs) == pytest.approx(figures, abs=1e-3)


async def test_other_weights_are_not_activated_below_an_adapter(
    http: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    refused = await admin.post("/admin/releases/v000004/activate", json={})
    assert refused.status_code == 409
    assert "the policies adapted are adapters on the weights of v000001" in refused.json()["error"]["message"]
    assert (await http.get("/readyz")).status_code == 200
