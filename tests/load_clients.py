"""Clients of a greedy and a polite API key that ask for more than a server can do. Half of them leave."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Any

import httpx

from ramify.treelog import Entry, TreeLog

WAITED = ("took this one's", "in time")
"""Text of a refusal that came only after a wait in the queue."""


@dataclass
class Load:
    """Counts of requests and answers of the clients."""

    url: str
    body: dict[str, Any]
    keys: dict[str, str]
    """Name to secret."""
    leave_after: float
    """Seconds within which a client that leaves does so, at random."""
    pause: float
    """Seconds, more or less, before a client that was refused asks again."""
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Answers by key and status."""
    started: set[str] = field(default_factory=set)
    """Ids of searches of which a client has heard."""
    left: int = 0
    refusals: list[float] = field(default_factory=list)
    """Seconds until each refusal that needed no waiting."""

    async def run(self, clients: dict[str, int], seconds: float, rng: random.Random) -> None:
        """So many clients of each key ask for `seconds`."""
        until = time.monotonic() + seconds
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            for key, count in clients.items():
                for number in range(
                    count
                ):  # each with a connection of its own: a shared pool makes some wait
                    http = await stack.enter_async_context(httpx.AsyncClient(timeout=120, verify=False))
                    one = random.Random(rng.random())
                    group.create_task(self._client(http, key, until, one, leaves=number % 2 == 1))

    async def _client(
        self, http: httpx.AsyncClient, key: str, until: float, rng: random.Random, *, leaves: bool
    ) -> None:
        await asyncio.sleep(rng.uniform(0, self.pause))
        while time.monotonic() < until:
            try:
                async with asyncio.timeout(rng.uniform(0, self.leave_after) if leaves else None):
                    refused = await self._ask(http, key)
            except TimeoutError:
                self.left += 1
            else:
                if refused:
                    await asyncio.sleep(self.pause * rng.uniform(0.5, 1.5))

    async def _ask(self, http: httpx.AsyncClient, key: str) -> bool:
        """Ask once, as a stream, to hear of the search when it starts. Returns whether it was refused."""
        began = time.monotonic()
        headers = {"Authorization": f"Bearer {self.keys[key]}"}
        async with http.stream("POST", f"{self.url}/v1/search", json=self.body, headers=headers) as answer:
            self.statuses[key, answer.status_code] += 1
            if answer.status_code != 200:
                text = (await answer.aread()).decode()
                if not any(words in text for words in WAITED):
                    self.refusals.append(time.monotonic() - began)
                return True
            async for line in answer.aiter_lines():
                if line.startswith("data: ") and (found := json.loads(line[6:]).get("id")):
                    self.started.add(found)
        return False

    def p99(self) -> float:
        """Seconds, of refusals that needed no waiting."""
        return quantiles(self.refusals, n=100)[98] if len(self.refusals) > 1 else 0.0

    def table(self) -> str:
        """Answers by key and status, and how long refusals took."""
        lines = [f"{'key':<8} {'status':>6} {'answers':>8}"]
        lines += [f"{key:<8} {status:>6} {n:>8}" for (key, status), n in sorted(self.statuses.items())]
        found = sorted(self.refusals) or [0.0]
        lines.append(
            f"{self.left} left; {len(self.refusals)} refusals at once: p50 {found[len(found) // 2] * 1000:.0f} ms, "
            f"p99 {self.p99() * 1000:.0f} ms"
        )
        return "\n".join(lines)


async def owners(log: TreeLog) -> dict[str, str]:
    """The API key of each logged search, by the search's id."""
    records = [record async for record in log.read()]
    return {r.tree_id.replace("tree_", "srch_"): r.key_id for r in records if isinstance(r, Entry)}


def figure(metrics: str, name: str) -> float:
    """The sum of a metric's values over its labels."""
    values = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", metrics, re.MULTILINE)
    return sum(map(float, values))


async def quiet(http: httpx.AsyncClient, seconds: float) -> str:
    """The server's metrics once nothing runs or waits; as they are after `seconds` if something still does."""
    until = time.monotonic() + seconds
    while True:
        metrics = (await http.get("/metrics")).text
        busy = [
            figure(metrics, f"ramify_{name}")
            for name in ("searches_running", "searches_waiting", "reserved_tokens")
        ]
        if not any(busy) or time.monotonic() > until:
            return metrics
        await asyncio.sleep(0.05)
