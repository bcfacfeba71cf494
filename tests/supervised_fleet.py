"""A fleet as an operator runs one: replicas that are started again whenever they end, each in a network namespace of
its own, on a PostgreSQL and an S3 server that come back with all they had, behind the fleet's own front door."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from contract.fleet.replicas import SETTINGS, write_releases
from fake_process import free_port
from fixtures_objects import CREDENTIALS, LastingS3, a_lasting_s3
from fixtures_postgres import PostgresServer, a_postgres, find_binaries
from front_doors import program
from network import Network, Place, a_network
from ramify.cluster.file import read_plan
from ramify.cluster.front import DoorLaunch, Front
from ramify.races import cancel

TESTS = Path(__file__).parent
SERVER = TESTS / "contract" / "fleet" / "fleet_server.py"
KEY, ADMIN_KEY = "a-client-of-the-fleet", "an-operator-of-the-fleet"
KEYS = f"""
[[keys]]
name = "client"
key = "{KEY}"
scopes = ["search", "log"]
"""
FILE = """
name = "letters"
[server]
log = "{log}"
fleet = {{ lease_seconds = {lease} }}
[door]
port = {ports[0]}
admin_port = {ports[1]}
metrics_port = {ports[2]}
"""
LEASE = "RAMIFY_FLEET__LEASE_SECONDS"
POLL = 0.05
PATIENCE = 120.0
"""Seconds within which whatever is waited for must happen, on a busy machine too."""


@dataclass(frozen=True)
class Kind:
    """The kind of the servers."""

    command: tuple[str, ...]
    write: Callable[[Path], Path]
    """Writes releases into the folder `weights` of another; the one to begin with."""


FAKE = Kind((sys.executable, str(SERVER)), lambda folder: write_releases(folder) / "v000001")
"""On fake engines."""


async def until(found: Callable[[], Any], what: str, seconds: float = PATIENCE) -> None:
    """Wait until `found`, or what it returns when awaited, is true."""
    give_up = time.monotonic() + seconds
    while True:
        value = found()
        if await value if asyncio.iscoroutine(value) else value:
            return
        assert time.monotonic() < give_up, f"not within {seconds:.0f} s: {what}"
        await asyncio.sleep(POLL)


@dataclass(eq=False)
class Supervised:
    """A replica that is started again whenever it ends, at the same addresses."""

    number: int
    place: Place
    folder: Path
    command: Sequence[str]
    variables: Mapping[str, str]
    http: httpx.AsyncClient
    admin: httpx.AsyncClient
    process: asyncio.subprocess.Process | None = None
    exits: list[int] = field(default_factory=list)
    """Exit codes, of every end so far."""
    _task: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        return f"http://{self.place.addresses['front']}:8000"

    def start(self) -> None:
        self._task = asyncio.create_task(self._supervise(), name=f"replica-{self.number}")

    async def stop(self) -> None:
        """End it, and start it no more."""
        if self._task is not None:
            await cancel(self._task)
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()

    async def _supervise(self) -> None:
        while True:
            with (self.folder / "log").open("ab") as log:
                self.process = await asyncio.create_subprocess_exec(
                    *self.place.command(*self.command),
                    env=os.environ | {"PYTHONPATH": str(TESTS)} | dict(self.variables),
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                )
            self.exits.append(await self.process.wait())

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.process.kill()

    def engine(self) -> psutil.Process | None:
        """Its engine's process, if it has one by now."""
        if self.process is None:
            return None
        with suppress(psutil.Error):
            return next(iter(psutil.Process(self.process.pid).children()), None)
        return None

    async def ready(self) -> bool:
        with suppress(httpx.HTTPError):
            return (await self.http.get("/readyz")).status_code == 200
        return False


@dataclass(eq=False)
class SupervisedFleet:
    """The fleet, and all that can be done to it."""

    network: Network
    database: PostgresServer
    store: LastingS3
    bucket: str
    replicas: list[Supervised]
    door: Front
    log: str
    """URL of its log, as this machine reaches it."""
    http: httpx.AsyncClient
    """Asks the front door."""

    async def all_ready(self) -> bool:
        return all([await replica.ready() for replica in self.replicas])

    async def leads_to(self, *numbers: int) -> bool:
        """True if the front door leads to these replicas, and to no other."""
        replies = [await self.http.get("/livez") for _ in range(2 * len(self.replicas))]
        return {reply.headers.get("x-ramify-replica") for reply in replies} == {str(n) for n in numbers}

    async def activate(self, release: str, mode: str, without: int | None = None) -> dict[str, Any] | None:
        """Ask for a release, one replica after another, until one knows how that ended; `None` if it went back.
        without: number of one that is not to be asked."""
        give_up = time.monotonic() + PATIENCE
        while time.monotonic() < give_up:
            for replica in (one for one in self.replicas if one.number != without):
                with suppress(httpx.HTTPError):
                    body = {"mode": mode, "deadline_seconds": 1}
                    reply = await replica.admin.post(f"/admin/releases/{release}/activate", json=body)
                    if reply.status_code == 200:
                        done: dict[str, Any] = reply.json()
                        return done
                    if reply.json()["error"]["code"] == "activation_failed":
                        return None
                    assert reply.status_code in (409, 503), reply.text
            await asyncio.sleep(POLL)
        raise AssertionError(f"{release} was not activated within {PATIENCE:.0f} s")


def _variables(number: int, place: Place, release: Path, log: str, bucket: str, s3: str) -> dict[str, str]:
    here = place.addresses["front"]
    return {
        **CREDENTIALS,
        **{f"RAMIFY_FLEET__{name.upper()}": str(value) for name, value in SETTINGS.items()},
        "RAMIFY_REPLICA": str(number),
        "RAMIFY_HOST": here,
        "RAMIFY_PORT": "8000",
        "RAMIFY_ADMIN__HOST": here,
        "RAMIFY_ADMIN__PORT": "8001",
        "RAMIFY_ADMIN__KEY": ADMIN_KEY,
        "RAMIFY_AUTH__KEYS_FILE": str(release.parents[1] / "keys.toml"),
        "RAMIFY_LOG": log,
        "RAMIFY_WEIGHTS": str(release.parent),
        "RAMIFY_RELEASE": str(release),
        "RAMIFY_OBJECTS__TREES": bucket,
        "RAMIFY_OBJECTS__ENDPOINT": s3,
        "RAMIFY_OBJECTS__SECONDS": "2",
        "RAMIFY_OBJECTS__RETRIES": "1",
    }


def _client(url: str, key: str, seconds: float) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=url,
        headers={"Authorization": f"Bearer {key}"},
        timeout=httpx.Timeout(seconds, connect=2.0),
        trust_env=False,
    )


@asynccontextmanager
async def a_supervised_fleet(
    folder: Path, size: int, *each: Mapping[str, str], kind: Kind = FAKE, seconds: float = PATIENCE
) -> AsyncIterator[SupervisedFleet]:
    """A fleet whose replicas are all ready. each: further variables of each replica's process. seconds: those that they
    may take to start."""
    haproxy, binaries = program("haproxy"), find_binaries()
    assert binaries is not None, "NO POSTGRESQL: initdb is neither on PATH nor in /usr/lib/postgresql/*/bin"
    release = kind.write(folder)
    (folder / "keys.toml").write_text(KEYS)
    async with AsyncExitStack() as stack:
        network = stack.enter_context(a_network(size))
        here = network.here["data"]
        database = stack.enter_context(a_postgres(binaries, here, network.data))
        store = stack.enter_context(a_lasting_s3(folder, here, 9000))
        bucket = await asyncio.to_thread(store.bucket)
        log = f"postgresql://ramify@{here}/postgres"
        replicas = []
        for number, place in enumerate(network.places):
            own = folder / str(number)
            own.mkdir()
            told = _variables(number, place, release, log, bucket, store.endpoint) | each[number]
            front = f"http://{place.addresses['front']}"
            clients = [
                await stack.enter_async_context(_client(f"{front}:{port}", key, seconds))
                for port, key, seconds in ((8000, KEY, 20.0), (8001, ADMIN_KEY, 60.0))
            ]
            replica = Supervised(number, place, own, kind.command, told, *clients)
            stack.push_async_callback(replica.stop)
            stack.callback(place.mend)
            replica.start()
            replicas.append(replica)
        plan = folder / "fleet.toml"
        ports = [free_port() for _ in range(3)]
        plan.write_text(
            FILE.format(log=log, lease=each[0].get(LEASE, SETTINGS["lease_seconds"]), ports=ports)
        )
        door = await Front.start(DoorLaunch.of(read_plan(plan)), haproxy)
        stack.push_async_callback(door.drain)
        http = await stack.enter_async_context(_client(f"http://127.0.0.1:{ports[0]}", KEY, 20.0))
        fleet = SupervisedFleet(network, database, store, bucket, replicas, door, log, http)
        await until(fleet.all_ready, f"all replicas are ready: {folder}", seconds)
        await until(lambda: fleet.leads_to(*range(size)), "the front door has noticed")
        yield fleet
