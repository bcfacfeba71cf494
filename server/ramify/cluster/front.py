"""The front door while it runs: HAProxy, told where the replicas are, and the page with the metrics of all of them."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import math
import shutil
import signal
import socket
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import httpx

from ramify.cluster.child import Child
from ramify.cluster.door import Place, changes, configuration, passed_over, places, tell
from ramify.cluster.figures import together
from ramify.cluster.file import DoorTable, Plan
from ramify.cluster.server import ANSWER, LAST_WORDS
from ramify.connections import ConnectionLimits, Listener, ListenError, bind
from ramify.fleet import FleetStore
from ramify.treelog import LogError

logger = logging.getLogger(__name__)
SOCKET = "SOCKET"
"""Stands for the path of HAProxy's socket in a configuration."""
FOLDERS, PREFIX, LOCK = Path("/tmp"), "ramify-door-", "lock"  # noqa: S108  # a socket's path must be short
"""Where each front door has a folder, how that is called, and the file that its door holds locked."""
FRESH = 1.0
"""Seconds for which a page of metrics is good: more scrapers ask the replicas no oftener."""
LOOK = 0.5
"""Seconds between two looks at the fleet."""
START = 60.0
"""Seconds that HAProxy may take until it listens."""
HANDOVER = 30.0
"""Seconds that the door before this one may take to free its port for metrics: Serve starts the next one meanwhile."""
SCRAPERS = ConnectionLimits(open=64, head_bytes=16_384, head_seconds=15, body_seconds=15, idle_seconds=65)
"""Limits of the listener for metrics."""


@dataclass(frozen=True)
class DoorLaunch:
    """A front door to be started: what it needs of a plan, so that no key of a server travels to it. One that has all
    of it need not be started anew."""

    door: DoorTable
    configuration: str
    """HAProxy's, with `SOCKET` in place of its socket's path."""
    log: str
    lease_seconds: float
    drain_seconds: float

    @classmethod
    def of(cls, plan: Plan) -> DoorLaunch:
        door, settings = plan.file.door, plan.settings
        text = configuration(door, settings, Path(SOCKET))
        return cls(door, text, settings.log, settings.fleet.lease_seconds, settings.drain_seconds)


@dataclass(eq=False)
class Front:
    """A running front door. Make one with `start`."""

    launch: DoorLaunch
    folder: Path
    lock: TextIO
    """Held on the folder for as long as this process lives."""
    store: FleetStore
    child: Child
    http: httpx.AsyncClient
    listener: Listener
    """Gives the page with the metrics."""
    places: dict[int, Place] = field(default_factory=dict)
    """Where HAProxy leads, by number."""
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    """Addresses of the replicas that it cannot lead to."""
    _page: tuple[float, bytes] = (-math.inf, b"")
    """The page with the metrics, and until when it is good."""
    _making: asyncio.Lock = field(default_factory=asyncio.Lock)

    @classmethod
    async def start(cls, launch: DoorLaunch, program: str) -> Front:
        """Return a door that listens. program: HAProxy's.

        Raises `RuntimeError` or `TimeoutError` if HAProxy does not start, `ListenError`, and `LogError` if the fleet
        cannot be seen."""
        scraped = await _bound(launch.door)
        store = await FleetStore.open(launch.log, launch.lease_seconds / 2)
        sweep()
        folder, lock = _own_folder()
        path = folder / "haproxy.cfg"
        path.write_text(launch.configuration.replace(SOCKET, str(_socket(folder))), encoding="utf-8")
        child = await Child.start((program, "-db", "-q", "-f", str(path)))

        async def page(
            scope: Any, receive: Any, send: Any
        ) -> None:  # uvicorn takes a bound method for ASGI 2
            await front.metrics(send)

        listener = Listener(page, SCRAPERS, grace=1)
        http = httpx.AsyncClient(timeout=ANSWER, trust_env=False)
        front = cls(launch, folder, lock, store, child, http, listener)
        async with asyncio.timeout(START):
            while not _socket(folder).exists():
                child.require_running()
                await asyncio.sleep(0.1)
        front.tasks = [
            asyncio.create_task(front.follow(), name="door"),
            asyncio.create_task(listener.serve(sockets=[scraped]), name="door-metrics"),
        ]
        return front

    async def follow(self) -> None:
        """Have HAProxy lead to the replicas that the fleet has; while that cannot be seen, to those it had."""
        said = ""
        while True:
            try:
                await self._look()
                said = ""
            except (LogError, OSError, TimeoutError) as error:
                if said != str(error):
                    logger.error("the front door leads where it led before: %s", error)
                said = str(error)
            await asyncio.sleep(LOOK)

    async def _look(self) -> None:
        if not self.places and not await self.store.has_epoch():
            return  # nobody has joined yet
        view = await self.store.view()
        if (over := passed_over(view)) != self.passed_over:
            logger.error("no IP address and port, so the front door does not lead there: %s", over)
            self.passed_over = over
        now = places(view)
        for commands in changes(self.places, now):
            await tell(_socket(self.folder), commands)
        self.places = now

    def require_alive(self) -> None:
        """Raise if HAProxy has ended, or the fleet is no longer followed."""
        self.child.require_running()
        for task in self.tasks:
            if task.done():
                task.result()
                raise RuntimeError(f"the task {task.get_name()} has ended")

    async def metrics(self, send: Any) -> None:
        """Answer a request, by ASGI's `send`, with the metrics of all replicas."""
        async with self._making:
            if self._page[0] <= time.monotonic():
                # Good from when it is made: a replica that says nothing must not have all wait for it in turn.
                page = await self._together()
                self._page = time.monotonic() + FRESH, page
        body = self._page[1]
        headers = [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _together(self) -> bytes:
        """Ask all replicas for their metrics, and return them as one page."""
        numbers = sorted(self.places)
        pages = await asyncio.gather(*(self._metrics_of(self.places[number]) for number in numbers))
        return await asyncio.to_thread(together, dict(zip(numbers, pages, strict=True)))

    async def _metrics_of(self, place: Place) -> str | None:
        with suppress(httpx.HTTPError):
            answer = await self.http.get(f"{place.address}/metrics")
            return answer.text if answer.status_code == 200 else None
        return None

    async def drain(self) -> None:
        """Free the ports for the next door, and wait for the answers on their way."""
        self.listener.should_exit = True
        self.tasks[0].cancel()
        await asyncio.wait(self.tasks, timeout=ANSWER)
        await self.child.end(signal.SIGUSR1, self.launch.drain_seconds + LAST_WORDS)
        await self.http.aclose()
        await self.store.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.lock.close()


async def _bound(door: DoorTable) -> socket.socket:
    """Bind the port for metrics. Raises `ListenError` if it is not free in time."""
    until = time.monotonic() + HANDOVER
    while True:
        try:
            return bind(door.host, door.metrics_port, settings="door.host, door.metrics_port")
        except ListenError:
            if time.monotonic() > until:
                raise
        await asyncio.sleep(LOOK)


def sweep() -> None:
    """Remove the folders of front doors that were killed: nobody holds the lock in them any more."""
    for lock in FOLDERS.glob(f"{PREFIX}*/{LOCK}"):
        with suppress(OSError), lock.open() as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent)


def _own_folder() -> tuple[Path, TextIO]:
    """Make a folder with a lock, which is held before it is seen under its name."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=FOLDERS))
    held = (folder / "new").open("w")
    fcntl.flock(held, fcntl.LOCK_EX)
    (folder / "new").rename(folder / LOCK)
    return folder, held


def _socket(folder: Path) -> Path:
    return folder / "haproxy.sock"
