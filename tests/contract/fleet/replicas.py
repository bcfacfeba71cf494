"""Replicas of a fleet on fake engines: inside the test, or processes of their own; and a door to PostgreSQL to shut."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from contract.api import world as worlds
from contract.api.world import PROMPT
from fakes_releases import ReloadingEngines, number, stamped, write_release
from ramify.api.app import admin_application, application
from ramify.api.context import Context, assemble
from ramify.fleet.decisions import live
from ramify.races import beside
from ramify.service.catalogue import resolve
from ramify.service.fleet import Fleet
from ramify.service.serving import serving_of
from ramify.settings import Settings
from ramify.treelog import TreeLog
from ramify.weights import Release, load_release

SETTINGS = {"name": "letters", "heartbeat_seconds": 0.1, "lease_seconds": 30, "activation_seconds": 300}
"""No lease runs out unless that is what is tested, however long a busy machine lets a process wait for its turn."""
SHORT = 4.0
"""Seconds of a lease that is to run out."""


def write_releases(folder: Path) -> Path:
    """Three releases, and one whose canary lies."""
    root = folder / "weights"
    write_release(root, 1.0, 0.1)
    write_release(root, 2.0, 0.2, parent="v000001")
    write_release(root, 3.0, 0.3, parent="v000002")
    write_release(root, 4.0, 0.4, published=(4.1, 0.4))
    return root


def engines_of(release: Release, settings: Settings) -> ReloadingEngines:
    held = number(release.policy_path), number(release.path / "value")
    engines = ReloadingEngines(held=held, serving=serving_of(release, settings))
    stamped(engines)
    return engines


@dataclass
class Local:
    """A replica inside the test."""

    context: Context
    fleet: Fleet
    engines: ReloadingEngines
    http: httpx.AsyncClient
    admin: httpx.AsyncClient

    async def activate(self, release: str, **body: Any) -> httpx.Response:
        return await self.admin.post(f"/admin/releases/{release}/activate", json=body)

    async def ready(self) -> bool:
        return (await self.http.get("/readyz")).status_code == 200

    @property
    def in_service(self) -> bool:
        """True if it takes requests at this moment."""
        standing = self.context.searches.admission.standing
        return standing.problem() is None and standing.waiting is None

    async def search(self, **body: Any) -> httpx.Response:
        return await self.http.post("/v1/search", json={"prompt": PROMPT, **body})

    async def state(self) -> dict[str, Any]:
        answer = await self.admin.get("/admin/fleet")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@asynccontextmanager
async def a_replica(
    url: str, root: Path, *, start: int | None = None, **settings: Any
) -> AsyncIterator[Local]:
    """A replica that has joined, and comes into service by itself. start: the epoch that was committed when its engines
    began to start, if another is by now."""
    fleet_settings = SETTINGS | settings.pop("fleet", {})
    chosen = Settings(log=url, weights=root, release=root / "v000001", fleet=fleet_settings, **settings)
    base = load_release(root / "v000001")
    async with AsyncExitStack() as stack:
        log = await TreeLog.open(url)
        stack.push_async_callback(log.close)
        clock = asyncio.get_running_loop().time

        async def first() -> Release:
            return base

        address = f"http://{root.parent.name}"
        fleet = await Fleet.join(
            chosen.fleet, url, address, first, clock, chosen.replica, boot_id=log.boot_id
        )
        chosen = chosen.model_copy(update={"replica": fleet.mine.number})
        stack.push_async_callback(fleet.leave)
        await stack.enter_async_context(beside(asyncio.create_task(fleet.run())))
        await asyncio.sleep(0)  # a look is under way while the engines come up, as in a server
        if start is not None:
            fleet.start = await fleet.store.epoch(start)
        engines = engines_of(load_release(resolve(root, base, fleet.start.release)), chosen)
        context = assemble(chosen, engines, log, base=base, fleet=fleet)
        stack.push_async_callback(context.searches.drain, 0)
        stack.callback(worlds.release, engines)
        apps = application(context), admin_application(context, None)
        clients = [
            await stack.enter_async_context(
                httpx.AsyncClient(
                    transport=httpx.ASGITransport(app, raise_app_exceptions=False),
                    base_url="http://127.0.0.1",
                    timeout=60,
                )
            )
            for app in apps
        ]
        yield Local(context, fleet, engines, *clients)


async def until_ready(*replicas: Any) -> None:
    """Wait until all take requests, and those in this process have seen one another."""
    here = [one.fleet for one in replicas if isinstance(one, Local)]
    async with asyncio.timeout(60):
        for one in replicas:
            while not await one.ready():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        for fleet in here:
            while not {other.mine.id for other in here} <= {row.id for row in live(fleet.view)}:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


@dataclass
class Door:
    """The way of one replica to PostgreSQL, which can be shut: what is on it then stays on it."""

    folder: Path
    behind: str
    open: asyncio.Event = field(default_factory=asyncio.Event)
    pipes: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"postgresql://ramify@/postgres?host={self.folder}"

    def shut(self) -> None:
        self.open.clear()

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            inner = await asyncio.open_unix_connection(self.behind)
            ways = [
                asyncio.create_task(self._carry(reader, inner[1])),
                asyncio.create_task(self._carry(inner[0], writer)),
            ]
            self.pipes.update(ways)
            await asyncio.wait(ways, return_when="FIRST_COMPLETED")
            for way in ways:
                way.cancel()
            inner[1].close()
        writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                await self.open.wait()
                writer.write(data)
                await writer.drain()


@asynccontextmanager
async def a_door(folder: Path, url: str) -> AsyncIterator[Door]:
    """`url` must name a Unix socket. folder: an empty one with a short path."""
    door = Door(folder, f"{url.rpartition('host=')[2]}/.s.PGSQL.5432")
    door.open.set()
    server = await asyncio.start_unix_server(door.relay, folder / ".s.PGSQL.5432")
    try:
        yield door
    finally:
        server.close()
        for pipe in door.pipes:
            pipe.cancel()


@dataclass
class Remote:
    """A replica in a process of its own."""

    process: asyncio.subprocess.Process
    http: httpx.AsyncClient
    admin: httpx.AsyncClient

    async def activate(self, release: str, **body: Any) -> httpx.Response:
        return await self.admin.post(f"/admin/releases/{release}/activate", json=body)

    async def ready(self) -> bool:
        with suppress(httpx.HTTPError):
            return (await self.http.get("/readyz")).status_code == 200
        return False

    async def search(self, **body: Any) -> httpx.Response:
        return await self.http.post("/v1/search", json={"prompt": PROMPT, **body})

    async def state(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.admin.get("/admin/fleet")).json()
        return found

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def a_process(url: str, root: Path, folder: Path, **variables: str) -> AsyncIterator[Remote]:
    """A replica in a process of its own, which has told its addresses."""
    fleet = {f"RAMIFY_FLEET__{name.upper()}": str(value) for name, value in SETTINGS.items()}
    told = {"RAMIFY_LOG": url, "RAMIFY_WEIGHTS": str(root), "RAMIFY_RELEASE": str(root / "v000001")}
    tests = Path(__file__).parents[2]
    errors = (folder / "errors.txt").open("a")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(__file__).with_name("fleet_server.py"))),
        env={**os.environ, **fleet, **told, **variables, "PYTHONPATH": f"{tests}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=errors,
        cwd=folder,
    )
    try:
        banner = ""
        assert process.stdout is not None
        while "  ask  " not in banner:
            line = (await process.stdout.readline()).decode()
            assert line, (folder / "errors.txt").read_text()[-2000:]
            banner += line
        addresses = re.search(r" at (http://\S+)", banner), re.search(r"  admin  (http://\S+)", banner)
        async with (
            httpx.AsyncClient(base_url=addresses[0][1], timeout=60) as http,  # type: ignore[index]
            httpx.AsyncClient(base_url=addresses[1][1], timeout=60) as admin,  # type: ignore[index]
        ):
            yield Remote(process, http, admin)
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.terminate()
        await process.wait()
        errors.close()


async def releases_of(*replicas: Local) -> list[str]:
    """Return the release with which each answers."""
    await until_ready(*replicas)
    return [(await one.search()).json()["release"] for one in replicas]
