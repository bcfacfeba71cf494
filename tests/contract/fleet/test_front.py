"""The front door of a fleet on Ray, before a replica of which the test decides when it answers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from fake_process import free_port
from front_doors import program
from ramify.cluster import front
from ramify.cluster.file import Plan, read_plan
from ramify.cluster.front import DoorLaunch, Front
from ramify.fleet import Epoch, FleetStore, Replica

pytestmark = [pytest.mark.anyio, pytest.mark.postgres, pytest.mark.timeout(300)]
FILE = """
name = "letters"
[server]
log = "{}"
drain_seconds = 200
[door]
port = {}
admin_port = {}
metrics_port = {}
"""


def a_plan(folder: Path, url: str) -> Plan:
    path = folder / "fleet.toml"
    path.write_text(FILE.format(url, *(free_port() for _ in range(3))))
    return read_plan(path)


@dataclass
class Slow:
    """A replica that is ready, and otherwise answers once it may."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    may: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"GET /readyz"):
            self.asked.set()
            await self.may.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()


async def join(url: str, address: str) -> None:
    store = await FleetStore.open(url, patience=60.0)
    first = Epoch(0, "v000001", "", "preparing", "rolling", "automatic", "", "", share=0.5, grace=0.0)
    row = Replica("a" * 12, address, "1", 0.0, lease=600.0, loaded=1, serving=1, number=0)
    await store.join("letters", row, first)
    await store.close()


async def asked_once_ready(http: httpx.AsyncClient, url: str) -> httpx.Response:
    while (answer := await http.get(url)).status_code == 503:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    return answer


async def test_a_door_takes_over_while_the_one_before_it_still_waits_for_an_answer(
    url: str, tmp_path: Path
) -> None:
    plan, slow = a_plan(tmp_path, url), Slow()
    door, haproxy = plan.file.door, program("haproxy")
    async with await asyncio.start_server(slow.serve, "127.0.0.1", 0) as server, httpx.AsyncClient() as http:
        await join(url, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        first = await Front.start(DoorLaunch.of(plan), haproxy)
        http.timeout = 120
        asked = asyncio.create_task(asked_once_ready(http, f"http://127.0.0.1:{door.port}/v1/models"))
        await slow.asked.wait()
        draining = asyncio.create_task(first.drain())
        second = await Front.start(DoorLaunch.of(plan), haproxy)
        assert not draining.done()
        assert not asked.done()
        slow.may.set()
        assert (await asked).status_code == 200
        await draining
        page = f"http://127.0.0.1:{door.metrics_port}/metrics"
        while 'ramify_replica_scraped{replica="0"} 1.0' not in (await http.get(page)).text:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        second.require_alive()
        await second.drain()


async def test_a_folder_of_a_door_that_was_killed_is_removed_and_one_that_lives_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "FOLDERS", tmp_path)
    (living, lock), (killed, left) = front._own_folder(), front._own_folder()
    left.close()  # as the kernel does
    front.sweep()
    assert living.exists()
    assert not killed.exists()
    lock.close()


async def test_the_page_of_metrics_is_made_once_for_all_who_ask_at_the_same_time(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long that takes, as when a replica says nothing."""
    plan, asked, now = a_plan(tmp_path, url), 0, 0.0
    made = Front._together

    async def counted(self: Front) -> bytes:
        nonlocal asked, now
        asked += 1
        now += 10 * front.FRESH
        return await made(self)

    monkeypatch.setattr(Front, "_together", counted)
    monkeypatch.setattr(front, "time", SimpleNamespace(monotonic=lambda: now))
    door = await Front.start(DoorLaunch.of(plan), program("haproxy"))
    page = f"http://127.0.0.1:{plan.file.door.metrics_port}/metrics"
    async with httpx.AsyncClient() as http:
        pages = await asyncio.gather(*(http.get(page) for _ in range(4)))
    assert ({reply.status_code for reply in pages}, asked) == ({200}, 1)
    await door.drain()
    assert not door.folder.exists()
