"""Reload on vLLM: 32 searches under way, a release put in the other's place, and nothing of the old one left.

The second release is the demo's two models with its weights drawn apart, published with the figures that it really has.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from models import TWO_MODELS
from ramify.weights import Details, Probe, Release, load_release, publish
from ramify_trainer.gate.value_scores import end_values
from ramify_trainer.learning.networks import load_judge
from server_process import ServerProcess, start

from .test_adapter_release import assert_written_by

pytestmark = [pytest.mark.vllm, pytest.mark.anyio, pytest.mark.timeout(900)]
BASE, NEXT, LYING, BROKEN = TWO_MODELS.name, "v000102", "v000103", "v000104"
PROMPT = "3 5 7 8 to 24\n"
LONG_PROMPT = [1, *range(20, 84)]
"""Two KV blocks of a CPU: what a stale prefix cache would answer from."""
LONGER = [[7], [8, 9, 10], list(range(30, 60))]
GREEDY = {"search": {"algorithm": "best_of_n", "schedule": "waves", "budget": {"simulations": 1}}}


def perturbed(root: Path, scale: float) -> Release:
    """The release of two models with noise of `scale` times their own spread on all weights, as `NEXT`."""
    base = load_release(TWO_MODELS)
    folder = root / ".made"
    noise = torch.Generator().manual_seed(2)
    for part in ("policy", "value"):
        shutil.copytree(base.path / part, folder / part)
        (file,) = (folder / part).glob("*.safetensors")
        weights = load_file(file)
        for tensor in weights.values():
            drawn = torch.randn(tensor.shape, generator=noise) * tensor.float().std(unbiased=False) * scale
            tensor.copy_(tensor.float() + drawn)
        save_file(weights, file, {"format": "pt"})
    details = Details(
        **{
            **{name: getattr(base.manifest, name) for name in Details.model_fields},
            "parent": base.id,
            "canary": figures(folder, base),
        }
    )
    return publish(root, folder / "policy", folder / "value", details, release_id=NEXT)


@torch.inference_mode()
def figures(folder: Path, base: Release) -> tuple[Probe, ...]:
    """The base's probes with what the weights in `folder` say of them, in float32."""
    policy = AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=torch.float32)
    judge, calibration = load_judge(folder / "policy", folder / "value"), base.manifest.calibration
    made = []
    for probe in base.manifest.canary:
        ids = torch.tensor([[*probe.prompt, *probe.continuation]])
        logprobs = policy(ids).logits[0].log_softmax(-1)[len(probe.prompt) - 1 : -1]
        own = logprobs.gather(1, torch.tensor(probe.continuation)[:, None])[:, 0]
        (judged,) = end_values(judge, ids.tolist(), (calibration.a, calibration.b))
        made.append(probe.model_copy(update={"logprobs": tuple(own.tolist()), "value": judged}))
    return tuple(made)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    perturbed(folder, 0.2)
    lying = shutil.copytree(folder / NEXT, folder / LYING)
    for name, old, new in (("manifest.json", f'"{NEXT}"', f'"{LYING}"'),):
        (lying / name).write_text((lying / name).read_text().replace(old, new))
    manifest = load_release(lying).manifest
    published = tuple(p.model_copy(update={"value": 1 - p.value}) for p in manifest.canary)
    (lying / "manifest.json").write_text(manifest.model_copy(update={"canary": published}).model_dump_json())
    return folder


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("reloading")
    config = folder / "ramify.toml"
    config.write_text('[engine]\ndtype = "float32"\n')
    flags = ["--release", str(TWO_MODELS), "--weights", str(root)]
    server = start(folder, flags, "--config", str(config))
    yield server
    server.stop()


async def asked(http: httpx.AsyncClient) -> dict[str, Any]:
    """Return a server's outputs under fixed seeds: a greedy answer, a seeded tree, values of long prefixes."""
    body = {"prompt": PROMPT, "seed": 5, "include_tree": True}
    greedy = await http.post("/v1/search", json={**body, **GREEDY, "sampling": {"temperature": 0.0}})
    waves = {"schedule": "waves", "parallel": 4, "budget": {"simulations": 12}}
    tree = await http.post("/v1/search", json={**body, "search": waves})
    values = await http.post("/v1/value", json={"prompt": LONG_PROMPT, "continuations": LONGER})
    trees = [reply.json()["tree_document"]["nodes"] for reply in (greedy, tree)]
    return {
        "texts": [[node["text"] for node in nodes] for nodes in trees],
        "logprobs": [lp for nodes in trees for node in nodes for lp in node["logprobs"]],
        "values": values.json()["values"],
        "release": {node["release"] for nodes in trees for node in nodes[1:]} | {values.json()["release"]},
    }


async def assert_weights_of(http: httpx.AsyncClient, release: Release) -> None:
    """Hold what a server writes, and its values of long prefixes, against the release's weights in transformers."""
    policy = AutoModelForCausalLM.from_pretrained(release.policy_path, dtype=torch.float32)
    body = {"prompt": PROMPT, "include_tree": True, "sampling": {"temperature": 1.0}}
    reply = await http.post("/v1/search", json=body)
    assert_written_by(reply.json(), release.id, policy)
    judge, calibration = load_judge(release.policy_path, release.path / "value"), release.manifest.calibration
    judged = end_values(judge, [[*LONG_PROMPT, *more] for more in LONGER], (calibration.a, calibration.b))
    assert (await asked(http))["values"] == pytest.approx(judged, abs=1e-3)


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["texts"] == other["texts"]
    assert one["release"] == other["release"]
    assert one["logprobs"] == pytest.approx(other["logprobs"], abs=1e-3)
    assert one["values"] == pytest.approx(other["values"], abs=1e-3)


async def test_a_release_is_loaded_under_32_searches_and_none_of_the_old_one_is_left(
    http: httpx.AsyncClient, admin: httpx.AsyncClient, root: Path
) -> None:
    before = await asked(http)
    assert before["release"] == {BASE}
    bodies = [
        {"prompt": PROMPT, "seed": i, "include_tree": True, "search": {"budget": {"tokens": 100 + 20 * i}}}
        for i in range(32)  # one after another comes to its end
    ]
    searches = [asyncio.create_task(http.post("/v1/search", json=body)) for body in bodies]
    await asyncio.wait(searches, return_when=asyncio.FIRST_COMPLETED)
    activation = await admin.post(f"/admin/releases/{NEXT}/activate", json={"deadline_seconds": 120})
    late = await http.post("/v1/search", json={"prompt": PROMPT, "include_tree": True})
    assert activation.status_code == 200, activation.text
    print("activation", activation.json())
    for reply in (await asyncio.gather(*searches), [late]):
        for one in reply:
            assert one.status_code == 200, one.text
            body = one.json()
            assert body["status"] == "complete"
            made = {node["release"] for node in body["tree_document"]["nodes"][1:]}
            assert made == {body["release"]}
    assert late.json()["release"] == NEXT
    found = activation.json()["canary"]
    assert found["distinguishable"] == found["probes"] == len(load_release(TWO_MODELS).manifest.canary)
    after = await asked(http)
    assert after["release"] == {NEXT}
    assert after["values"] != pytest.approx(before["values"], rel=1e-2, abs=0)
    await assert_weights_of(http, load_release(root / NEXT))
    back = await admin.post("/admin/releases/rollback", json={})
    assert back.json()["release"] == BASE
    assert_same(await asked(http), before)


async def test_a_release_with_wrong_figures_is_gone_back_from_on_vllm(
    http: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    before = await asked(http)
    refused = await admin.post(f"/admin/releases/{LYING}/activate", json={})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "activation_failed")
    assert "not the weights that were published" in refused.json()["error"]["message"]
    assert_same(await asked(http), before)
    assert (await http.get("/readyz")).status_code == 200


async def test_a_truncated_release_is_refused_on_vllm(
    http: httpx.AsyncClient, admin: httpx.AsyncClient, root: Path
) -> None:
    broken = shutil.copytree(root / NEXT, root / BROKEN)
    path = broken / "policy" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    (broken / "manifest.json").write_text((broken / "manifest.json").read_text().replace(NEXT, BROKEN))
    refused = await admin.post(f"/admin/releases/{BROKEN}/activate", json={})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "activation_failed")
    assert (await http.get("/version")).json()["release"] == BASE
