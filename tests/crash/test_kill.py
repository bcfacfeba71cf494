"""kill -9 of a real server under load: nothing acknowledged is lost, nothing needs repair, no process is left."""

from __future__ import annotations

import asyncio
import os
import random
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from ramify.treelog import TreeLog, VerifyReport
from server_process import ServerProcess, model_flags, start, still_running

pytestmark = [pytest.mark.crash, pytest.mark.vllm, pytest.mark.timeout(7200)]
ROUNDS = int(os.environ.get("RAMIFY_CRASH_ROUNDS", "20"))
SEED = int(os.environ.get("RAMIFY_CRASH_SEED", "20261122"))
CLIENTS = 16
PROMPTS = ["3 5 7 8 to 24", "2 4 6 9 to 30", "1 3 8 11 13 to 50", "4 4 7 9 to 41", "2 3 5 6 10 12 to 77"]


@dataclass
class Load:
    """Answers that clients had before the server died."""

    acknowledged: list[str] = field(default_factory=list)
    replayable: dict[str, str] = field(default_factory=dict)
    """Idempotency-Key -> id of the search that was answered under it."""
    refused: int = 0


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return model_flags(tmp_path_factory.mktemp("models"))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def rng() -> random.Random:
    return random.Random(SEED)


def body(rng: random.Random) -> dict[str, object]:
    return {
        "prompt": rng.choice(PROMPTS),
        "search": {
            "algorithm": rng.choice(["mcts", "best_of_n", "gumbel"]),
            "budget": {"simulations": rng.choice([1, 8, 64, 400])},
        },
    }


async def client(url: str, rng: random.Random, load: Load, name: str) -> None:
    """Ask again and again until the server is gone."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        number = 0
        while True:
            number += 1
            key = f"{name}:{number}"
            try:
                answer = await http.post("/v1/search", json=body(rng), headers={"Idempotency-Key": key})
            except httpx.HTTPError:
                return
            if answer.status_code != 200:
                load.refused += 1
                continue
            found = answer.json()["id"]
            load.acknowledged.append(found)
            load.replayable[key] = found


async def under_load(server: ServerProcess, rng: random.Random, load: Load, name: str) -> list[object]:
    """Load the server, kill it at a random moment, return the processes it left.

    The moment is a random number of answers and a random fraction of a second more: a slow machine is killed under
    the same load as a fast one."""
    clients = [
        asyncio.create_task(client(server.url, random.Random(rng.random()), load, f"{name}:{i}"))
        for i in range(CLIENTS)
    ]
    answers, later = rng.choice([0, 1, 4, 16, 40]), rng.uniform(0.0, 0.5)
    give_up = time.monotonic() + 60
    while len(load.acknowledged) < answers and time.monotonic() < give_up:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await asyncio.sleep(later)
    left = server.kill()
    await asyncio.gather(*clients)
    return list(left)


async def audit(log_url: str) -> tuple[VerifyReport, set[str]]:
    """The log as it lies there, opened by nobody since."""
    async with await TreeLog.open(log_url, read_only=True) as log:
        ids = {record.tree_id async for record in log.read() if record.kind == "tree"}
        return await log.verify(), ids


@pytest.mark.anyio
async def test_kill_9_loses_nothing_leaves_nothing_and_needs_no_repair(
    tmp_path: Path, flags: list[str], rng: random.Random
) -> None:
    acknowledged: list[str] = []
    longest_left, starts = 0.0, []
    for number in range(ROUNDS):
        began = time.monotonic()
        server = await asyncio.to_thread(start, tmp_path, flags)
        starts.append(time.monotonic() - began)
        load = Load()
        left = await under_load(server, rng, load, str(number))
        began = time.monotonic()
        alive = await asyncio.to_thread(still_running, left, 5.0)  # type: ignore[arg-type]
        longest_left = max(longest_left, time.monotonic() - began)
        assert len(left) >= 2, "both engines have a process of their own"
        assert not alive, f"round {number}: {alive} outlived the server by 5 s"
        acknowledged += load.acknowledged
        report, ids = await audit(server.log_url)
        assert report.ok, report.bad[:3]
        missing = {f"tree_{found[5:]}" for found in acknowledged} - ids
        assert not missing, f"round {number}: acknowledged and not in the log: {sorted(missing)[:3]}"
        print(
            f"round {number + 1}/{ROUNDS}: {len(load.acknowledged)} answers before the kill, {len(ids)} trees in "
            f"the log, engines gone after {longest_left:.2f} s at most, start {starts[-1]:.1f} s"
        )
    server = await asyncio.to_thread(start, tmp_path, flags)
    try:
        await replays(server, load)
    finally:
        assert await asyncio.to_thread(server.stop) == 0
    assert (await audit(server.log_url))[0].ok
    print(f"{ROUNDS} kills, {len(acknowledged)} acknowledged searches, all in the log")


async def replays(server: ServerProcess, load: Load) -> None:
    """Kept answers survive the kill; keys of searches that died with the server are free again."""
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
        for found in list(load.replayable.values())[:5]:
            assert (await http.get(f"/v1/search/{found}")).json()["id"] == found
        fresh = await http.post(
            "/v1/search", json={"prompt": PROMPTS[0]}, headers={"Idempotency-Key": "after:the:kill"}
        )
        assert fresh.status_code == 200, fresh.text
