"""Two replicas against one, and what an activation over both takes: engines of a fixed service time, and real ones."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ramify.weights import Details, load_release, publish, shipped
from supervised_fleet import Kind, SupervisedFleet, a_supervised_fleet, until

pytestmark = [pytest.mark.anyio, pytest.mark.cluster, pytest.mark.postgres, pytest.mark.timeout(3600)]
CLIENTS = 16
SLACK = 1.0
"""Seconds that an activation may take beyond the replicas' own."""
FAKE_BODY = {"prompt": "?\n", "search": {"budget": {"simulations": 8}}}
REAL_BODY = {"prompt": "3 5 7 8 to 24\n", "search": {"budget": {"tokens": 300}}}
NEXT = "v000102"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def rate(fleet: SupervisedFleet, searches: int, body: dict[str, Any]) -> tuple[float, set[str]]:
    """Searches a second of the whole fleet, asked through its front door, and the numbers of those that answered."""
    left, answered = iter(range(searches)), set()

    async def client() -> None:
        for _ in left:
            reply = await fleet.http.post("/v1/search", json=body, timeout=600)
            answered.add(reply.raise_for_status().headers["x-ramify-replica"])

    began = time.monotonic()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return searches / (time.monotonic() - began), answered


async def stop(fleet: SupervisedFleet, number: int) -> None:
    """End a replica, the other of two; return once the front door leads there no more."""
    await fleet.replicas[number].stop()
    await until(lambda: fleet.leads_to(1 - number), "the front door has noticed")


async def assert_activates(fleet: SupervisedFleet, release: str, mode: str) -> None:
    """Activate a release on both; it takes as long as the slower one, or one after the other if it is rolled out."""
    done = await fleet.activate(release, mode)
    assert done is not None
    each = [row["seconds"]["total"] for row in done["replicas"]]
    total, least = done["seconds"]["total"], max(each) if mode == "barrier" else sum(each)
    print(f"\n{mode}: {total:.2f} s, the replicas {' and '.join(f'{one:.2f}' for one in each)} s")
    assert len(each) == 2
    assert total < least + SLACK


async def test_two_replicas_do_twice_what_one_does_and_an_activation_takes_as_long_as_the_slower_one(
    tmp_path: Path,
) -> None:
    slow = {"DRAW_SECONDS": "0.05"}
    each = (slow | {"LOAD_SECONDS": "0.5"}, slow | {"LOAD_SECONDS": "1.5"})
    async with a_supervised_fleet(tmp_path, 2, *each) as fleet:
        both, answered = await rate(fleet, 60, FAKE_BODY)
        assert answered == {"0", "1"}
        await assert_activates(fleet, "v000002", "barrier")
        await assert_activates(fleet, "v000003", "rolling")
        await stop(fleet, 1)
        alone, _ = await rate(fleet, 30, FAKE_BODY)
        print(f"searches a second, each draw 50 ms of an engine: one {alone:.2f}, two {both:.2f}")
        assert both > 1.6 * alone


def write_shipped(folder: Path) -> Path:
    """The shipped release, and the same once more under another id."""
    base = load_release(shipped())
    root = folder / "weights"
    shutil.copytree(base.path, root / base.id)
    details = {name: getattr(base.manifest, name) for name in Details.model_fields}
    publish(
        root, base.policy_path, base.path / "value", Details(**details | {"parent": base.id}), release_id=NEXT
    )
    return root / base.id


REAL = Kind((sys.executable, "-m", "ramify", "serve"), write_shipped)


@pytest.mark.vllm
async def test_two_real_replicas_answer_share_the_cores_and_take_a_release_together(tmp_path: Path) -> None:
    usual = {"RAMIFY_ENGINE__COMPILE": "false", "RAMIFY_ENGINE__THREADS": "1"}
    async with a_supervised_fleet(tmp_path, 2, usual, usual, kind=REAL, seconds=1800) as fleet:
        await rate(fleet, CLIENTS, REAL_BODY)
        both, answered = await rate(fleet, 96, REAL_BODY)
        assert answered == {"0", "1"}
        await assert_activates(fleet, NEXT, "barrier")
        served = [
            (await one.http.post("/v1/search", json=REAL_BODY)).json()["release"] for one in fleet.replicas
        ]
        assert served == [NEXT, NEXT]
        await stop(fleet, 1)
        alone, _ = await rate(fleet, 96, REAL_BODY)
        print(f"searches a second of 300 tokens, vLLM, one thread each: one {alone:.2f}, two {both:.2f}")
