"""A release whose value is a head on the policy's trunk, on vLLM: published, served, searched, reloaded, rolled back.

The heads are random ones on the shipped policy, published with the figures that they really have.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch

from models import TWO_MODELS
from ramify.weights import HEAD, Details, Release, hidden_size, load_release, publish
from ramify_trainer.learning.value_head import write_head
from server_process import ServerProcess

from .test_reload import asked, assert_same, figures, serve

pytestmark = [pytest.mark.vllm, pytest.mark.anyio, pytest.mark.timeout(900)]


def with_random_head(root: Path, seed: int) -> Release:
    """The two models' policy with a random head on its trunk."""
    base = load_release(TWO_MODELS, verify=False)
    parts = root / f".made-{seed}"
    shutil.copytree(base.policy_path, parts / "policy")
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(1, hidden_size(base.policy_path), generator=generator) / 8
    write_head(parts / "value", {"weight": weight, "bias": torch.zeros(1)})
    said = {name: getattr(base.manifest, name) for name in Details.model_fields}
    details = Details(**said | {"search": (), "canary": figures(parts, base)})
    return publish(root, parts / "policy", parts / "value" / HEAD, details)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("trunk")
    root = folder / "weights"
    first, _ = with_random_head(root, 1), with_random_head(root, 2)
    server = serve(folder, root, first.path)
    yield server
    server.stop()


async def test_another_head_is_loaded_live_and_gone_back_from(
    http: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    assert (await http.get("/v1/models")).json()["data"][0]["value"] == "trunk"
    before = await asked(http)
    assert before["release"] == {"v000001"}
    done = await admin.post("/admin/releases/v000002/activate", json={"deadline_seconds": 60})
    assert done.status_code == 200, done.text
    canary = done.json()["canary"]
    assert canary["distinguishable"] == canary["probes"] > 0
    after = await asked(http)
    assert after["release"] == {"v000002"}
    assert after["values"] != pytest.approx(before["values"], rel=1e-2, abs=0)
    assert (await admin.post("/admin/releases/rollback", json={})).json()["release"] == "v000001"
    assert_same(await asked(http), before)
