"""A trainer whose server is a fleet: it asks the front door, learns what both replicas searched, and is killed."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.fleet.replicas import SETTINGS
from fake_process import free_port
from fakes_training import Site, a_site, small
from fixtures_postgres import PostgresServer, postgres_server  # noqa: F401  (a fixture)
from front_doors import program
from ramify.cluster.file import read_plan
from ramify.cluster.front import DoorLaunch, Front
from ramify.fleet import Epoch
from training_driver import run_rounds

pytestmark = [pytest.mark.anyio, pytest.mark.postgres, pytest.mark.timeout(600)]
ROUNDS, PROBLEMS = 3, 6
KILLED = ("collect:3", "advance", "activate")
"""Points at which the trainer is killed in turn: as it searches, between two rounds, as a release is served."""
FILE = """
name = "letters"
[server]
log = "{}"
[door]
port = {}
admin_port = {}
metrics_port = {}
"""


def a_plan(folder: Path, url: str, ports: list[int]) -> Path:
    path = folder / "fleet.toml"
    path.write_text(FILE.format(url, *ports))
    return path


async def until_both_answer(door: str) -> None:
    """Ask the door until it has led to both replicas: it leads to none before it has seen it ready."""
    found: set[str | None] = set()
    async with httpx.AsyncClient(base_url=door) as http, asyncio.timeout(60):
        while not found >= {"0", "1"}:
            found.add((await http.get("/livez")).headers.get("x-ramify-replica"))
            await asyncio.sleep(0.05)


async def epochs_of(site: Site) -> list[Epoch]:
    fleet = site.context.fleet
    assert fleet is not None
    return [await fleet.store.epoch(number) for number in range(1, fleet.view.newest.number + 1)]


async def test_three_rounds_against_a_fleet_learn_from_both_replicas_and_are_served_by_both(
    tmp_path: Path,
    postgres_server: PostgresServer,  # noqa: F811
) -> None:
    haproxy, url = program("haproxy"), postgres_server.database()
    ports = [free_port() for _ in range(3)]
    fleet: dict[str, Any] = {"log": url, "fleet": SETTINGS}
    async with (
        a_site(tmp_path, (free_port(), free_port()), **fleet) as one,
        a_site(tmp_path, (free_port(), free_port()), **fleet) as two,
    ):
        door = await Front.start(DoorLaunch.of(read_plan(a_plan(tmp_path, url, ports))), haproxy)
        at = [f"http://127.0.0.1:{port}" for port in ports]
        await until_both_answer(at[0])
        config = small(tmp_path, at[0], at[1])
        config = config.model_copy(update={"collect": config.collect.model_copy(update={"concurrency": 4})})
        for point in KILLED:
            assert await asyncio.to_thread(run_rounds, config, ROUNDS, point) == -signal.SIGKILL, point
        assert await asyncio.to_thread(run_rounds, config, ROUNDS, None) == 0
        await door.drain()
        state = json.loads((tmp_path / "state" / "state.json").read_text())
        releases = ["v000002", "v000003", "v000004"]
        assert [record["release"] for record in state["history"]] == releases
        assert [site.engines.loads for site in (one, two)] == [releases, releases]
        assert [(e.release, e.state) for e in await epochs_of(one)] == [
            (release, "committed") for release in ["v000001", *releases]
        ]
        logged = await one.log.list(limit=1000)
        complete = [tree for tree in logged if tree.status == "complete"]
        assert Counter(tree.release for tree in complete) == dict.fromkeys(
            ["v000001", *releases[:-1]], PROBLEMS
        )
        # The door takes a replica out while its health check is late: on a busy machine a round may have had just one.
        assert {tree.tree_id[-2:] for tree in complete} == {"00", "01"}
