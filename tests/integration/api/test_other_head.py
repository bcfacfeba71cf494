"""A release whose value is a head on the policy's trunk, on vLLM: another is activated, searched with, and rolled back.

The other head is a random one on the shipped policy, published with the figures that it really has.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx
import pytest
import torch

from ramify.weights import HEAD, Details, Release, hidden_size, load_release, publish, shipped
from ramify_trainer.learning.value_head import write_head
from server_process import ServerProcess

from .test_reload import asked, assert_same, figures

pytestmark = [pytest.mark.vllm, pytest.mark.anyio, pytest.mark.timeout(900)]
OTHER = "v000102"


def with_random_head(root: Path) -> Release:
    """The shipped policy with a random head on its trunk."""
    base = load_release(shipped(), verify=False)
    parts = root / ".made"
    shutil.copytree(base.policy_path, parts / "policy")
    weight = torch.randn(1, hidden_size(base.policy_path), generator=torch.Generator().manual_seed(2)) / 8
    write_head(parts / "value", {"weight": weight, "bias": torch.zeros(1)})
    said = {name: getattr(base.manifest, name) for name in Details.model_fields}
    details = Details(**said | {"search": (), "canary": figures(parts, base)})
    return publish(root, parts / "policy", parts / "value" / HEAD, details, release_id=OTHER)


async def test_another_head_is_loaded_live_and_gone_back_from(
    server: ServerProcess, http: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    with_random_head(server.folder / "weights")
    assert (await http.get("/v1/models")).json()["data"][0]["value"] == "trunk"
    before = await asked(http)
    assert before["release"] == {shipped().name}
    done = await admin.post(f"/admin/releases/{OTHER}/activate", json={"deadline_seconds": 60})
    assert done.status_code == 200, done.text
    canary = done.json()["canary"]
    assert canary["distinguishable"] == canary["probes"] > 0
    after = await asked(http)
    assert after["release"] == {OTHER}
    assert after["values"] != pytest.approx(before["values"], rel=1e-2, abs=0)
    assert (await admin.post("/admin/releases/rollback", json={})).json()["release"] == shipped().name
    assert_same(await asked(http), before)
