"""One replica: `ramify serve` as a child process, ready before it counts as started, drained before it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import httpx

from ramify.cluster.child import Child
from ramify.cluster.figures import reading
from ramify.cluster.file import Plan
from ramify.launcher import BANNER
from ramify.settings.loading import PREFIX, variables

LAST_WORDS = 15.0
"""Seconds beyond `drain_seconds` in which a server logs, answers and ends."""
ANSWER = 5.0
"""Seconds that a server may take to say that it lives."""
POLL = 0.25
"""Seconds between two questions whether it is ready."""


@dataclass(frozen=True)
class Launch:
    """A replica to be started, on whichever node."""

    command: tuple[str, ...] | None
    """`None`: `ramify serve` of the node's own Python."""
    variables: Mapping[str, str]
    """The settings."""
    folder: str
    """Folder in which it runs."""
    start_seconds: float
    drain_seconds: float

    @classmethod
    def of(cls, plan: Plan) -> Launch:
        replicas, drain = plan.file.replicas, plan.settings.drain_seconds
        told = dict(sorted(plan.variables.items()))
        return cls(replicas.command, told, str(plan.folder), replicas.start_seconds, drain)

    def environment(self, host: str) -> dict[str, str]:
        """Return the environment of a replica that listens on `host`, on free ports."""
        ours = {name for name, _, _ in variables()}
        address = {"HOST": host, "PORT": "0", "ADMIN__HOST": host, "ADMIN__PORT": "0"}
        rest = {name: value for name, value in os.environ.items() if name not in ours}
        return {**rest, **self.variables, **{PREFIX + name: value for name, value in address.items()}}


@dataclass(eq=False)
class Server:
    """A running replica. Make one with `start`."""

    launch: Launch
    child: Child
    url: str
    http: httpx.AsyncClient

    @classmethod
    async def start(cls, launch: Launch, host: str) -> Server:
        """Return a replica that listens on `host` once it is ready, which is at the epoch that its fleet serves.

        Raises `RuntimeError`, with its last lines, if it ends or is not ready in time."""
        command = launch.command or (sys.executable, "-m", "ramify", "serve")
        child = await Child.start(command, launch.folder, launch.environment(host))
        http = httpx.AsyncClient(timeout=ANSWER, trust_env=False)
        try:
            async with asyncio.timeout(launch.start_seconds):
                server = cls(launch, child, (await child.said(BANNER))[1], http)
                while not await server.is_ready():
                    child.require_running()
                    await asyncio.sleep(POLL)
        except BaseException as error:
            await child.end(signal.SIGKILL, 0)
            if isinstance(error, TimeoutError):
                raise RuntimeError(f"not ready after {launch.start_seconds:g} s:\n{child.tail()}") from error
            raise
        return server

    async def is_ready(self) -> bool:
        with suppress(httpx.HTTPError):
            return (await self.http.get(f"{self.url}/readyz")).status_code == 200
        return False

    async def require_alive(self) -> None:
        """Raise if the server has ended or hangs. One that is only behind its fleet is alive, and gets no traffic.
        So is one that says 503, since all its connections are taken."""
        self.child.require_running()
        await self.http.get(f"{self.url}/livez")

    async def reserved_tokens(self) -> float:
        return reading((await self.http.get(f"{self.url}/metrics")).text, "ramify_reserved_tokens")

    async def drain(self) -> None:
        """Let running searches end, and stop those that have not after `drain_seconds`."""
        await self.child.end(signal.SIGTERM, self.launch.drain_seconds + LAST_WORDS)
        await self.http.aclose()
