"""Two servers on fake engines that share a PostgreSQL log, and each kind of front door before them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from fake_process import FakeServer, fake_server, free_port
from fixtures_postgres import PostgresServer, postgres_server  # noqa: F401  (a fixture)
from front_doors import Front, running, until

ALICE, BOB, READER = "alice-alice-alice", "bob-of-the-tests", "reader-reader-reader"
KEYS = f"""
[[keys]]
name = "alice"
key = "{ALICE}"
scopes = ["search", "feedback"]
[[keys]]
name = "bob"
key = "{BOB}"
scopes = ["search"]
[[keys]]
name = "reader"
key = "{READER}"
scopes = ["log"]
"""
LONG = {"algorithm": "best_of_n", "budget": {"simulations": 10_000}, "parallel": 1}
"""A search that runs until somebody ends it: each simulation takes `SECONDS_A_DRAW` or more. A tree would sometimes be
exhausted before."""
SHORT = {"budget": {"simulations": 2}}
SECONDS_A_DRAW = "0.02"
DRAIN_SECONDS = "8"


@dataclass
class Fleet:
    """Two servers, replica 0 and replica 1."""

    replicas: tuple[FakeServer, FakeServer]

    @property
    def addresses(self) -> list[str]:
        return [server.url.removeprefix("http://") for server in self.replicas]

    def revive(self) -> None:
        """Start those that a test has ended."""
        for server in self.replicas:
            if server.process.poll() is not None:
                server.start()


@dataclass
class Door:
    """A front door, as its clients meet it."""

    front: Front
    fleet: Fleet
    http: httpx.Client

    def search(self, **body: Any) -> httpx.Response:
        headers = body.pop("headers", {})
        return self.http.post("/v1/search", json={"prompt": "?\n", "search": SHORT, **body}, headers=headers)

    def session(self, replica: int) -> dict[str, str]:
        """The header of a session that goes to a replica; waits until that one is taken to be ready."""
        return until(lambda: self._session(str(replica)), f"replica {replica} gets traffic")

    def _session(self, replica: str) -> dict[str, str] | None:
        for header in ({"x-session-id": f"session-{number}"} for number in range(32)):
            if self.http.get("/livez", headers=header).headers["x-ramify-replica"] == replica:
                return header
        return None


@pytest.fixture(scope="session")
def fleet(
    postgres_server: PostgresServer,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    (folder / "keys.toml").write_text(KEYS)
    usual = {
        "RAMIFY_LOG": postgres_server.database(),
        "RAMIFY_AUTH__KEYS_FILE": str(folder / "keys.toml"),
        "RAMIFY_ADMIN__PORT": "0",
        "RAMIFY_DRAIN_SECONDS": DRAIN_SECONDS,
        "FAKE_SECONDS": SECONDS_A_DRAW,
    }
    with ExitStack() as stack:
        servers = []
        for number in range(2):
            own = {"RAMIFY_PORT": str(free_port()), "RAMIFY_REPLICA": str(number)}
            (folder / str(number)).mkdir()
            servers.append(stack.enter_context(fake_server(folder / str(number), **usual, **own)))
        yield Fleet((servers[0], servers[1]))


@pytest.fixture(scope="session", params=["haproxy", "nginx"])
def front(
    request: pytest.FixtureRequest, fleet: Fleet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    with running(request.param, tmp_path_factory.mktemp(request.param), fleet.addresses) as front:
        yield front


@pytest.fixture
def door(front: Front, fleet: Fleet) -> Iterator[Door]:
    """A front door with two ready servers behind it, for alice."""
    fleet.revive()
    with httpx.Client(base_url=front.url, headers={"Authorization": f"Bearer {ALICE}"}, timeout=60) as http:
        door = Door(front, fleet, http)
        for replica in range(2):  # one that was started again may not have been noticed yet
            door.session(replica)
        yield door
