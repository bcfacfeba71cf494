"""The front door: which replica gets a search. It knows of a replica what its last health check said."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Literal

import simpy

from ramify.service.spool import FRESH
from research.scale.parameters import Parameters
from research.scale.replicas import Server
from research.scale.stations import Station, Work

Policy = Literal["least", "sticky", "bounded"]
"""`least`: the fewest connections; `sticky`: a session's own replica as long as it is ready (consistent hashing);
`bounded`: the same unless it has more than `BOUND` times the mean (Mirrokni, Thorup and Zadimoghaddam 2018; HAProxy's
`hash-balance-factor`)."""
BOUND = 1.5


class Front:
    """One front door, such as HAProxy."""

    def __init__(
        self, env: simpy.Environment, of: Parameters, policy: Policy, replicas: int, phases: random.Random
    ) -> None:
        self.env, self.of, self.policy = env, of, policy
        self.station = Station(env)
        self.ready: dict[int, Server] = {}
        """Replicas whose last check was good, by number."""
        self._replicas, self._phases = replicas, phases
        self._sent = 0
        self._turns: dict[int, int] = {}
        """When each replica was sent a search last, for those that have equally many."""

    def send(self, session: int | None) -> Server | None:
        """Choose a replica; `None` if none is ready."""
        if not self.ready:
            return None
        server = self._least() if session is None or self.policy == "least" else self._hashed(session)
        self._sent += 1
        self._turns[server.number] = self._sent
        return server

    def _least(self) -> Server:
        turns = self._turns
        return min(self.ready.values(), key=lambda server: (server.connections, turns.get(server.number, 0)))

    def _hashed(self, session: int) -> Server:
        """Return the first replica, in the session's own order of all, that is ready and may take one more."""
        everything = sum(server.connections for server in self.ready.values()) + 1
        bound = math.ceil(BOUND * everything / len(self.ready)) if self.policy == "bounded" else everything
        order = random.Random(session)
        while True:
            server = self.ready.get(order.randrange(self._replicas))
            if server is not None and server.connections < bound:
                return server

    def watch(self, number: int, current: Callable[[int], Server]) -> Work:
        """Check a replica's health again and again."""
        yield self.env.timeout(self._phases.random() * self.of.health_seconds)
        while True:
            server = current(number)
            if (yield from self._healthy(server)) and not server.dead:
                self.ready[number] = server
            else:
                self.ready.pop(number, None)
            yield self.env.timeout(self.of.health_seconds)

    def _healthy(self, server: Server) -> Work:
        """Ask `/readyz`: a replica has its log commit something unless that, or a look at the fleet, has just done."""
        if not server.in_service:
            return False
        if self.env.now - max(server.writer.wrote, server.due) <= FRESH:
            return True
        probe = server.writer.touch()
        yield probe | self.env.timeout(self.of.probe_deadline)
        return bool(probe.triggered)
