"""Nobody can hold the server's connections for nothing: many idle ones, late heads and bodies, huge heads."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from fake_process import fake_server
from ramify.api.app import application
from ramify.connections import ConnectionLimits, Listener, room_for

from .world import World

LIMITS = ConnectionLimits(open=64, head_bytes=8192, head_seconds=0.5, body_seconds=0.5, idle_seconds=2)
GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@asynccontextmanager
async def listening(app: Any, limits: ConnectionLimits = LIMITS) -> AsyncIterator[int]:
    """The port of an application behind the server's own listener."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    listener = Listener(app, limits, grace=1)
    serving = asyncio.create_task(listener.serve(sockets=[sock]))
    try:
        yield sock.getsockname()[1]
    finally:
        listener.should_exit = True
        await serving


async def told(port: int, sent: bytes) -> bytes:
    """Read what the server says before it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.transport.abort()


def error_of(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]["code"]


@pytest.mark.anyio
async def test_a_client_that_is_late_is_closed_and_told_why(world: World) -> None:
    async with listening(application(world.context)) as port:
        answers = await asyncio.gather(
            told(port, b""),
            told(port, GET),
            told(port, GET[:-2] + b"X-Slow: "),
            told(port, POST + b'Content-Length: 9\r\n\r\n{"a"'),
            told(port, GET + GET[:20]),
        )
    assert answers[0] == b""  # nothing was asked
    assert answers[1].count(b"HTTP/1.1 ") == 1  # answered, and closed when it idled
    assert error_of(answers[2]) == (408, "too_slow")
    assert error_of(answers[3]) == (408, "too_slow")
    assert b"200 OK" in answers[4]
    assert b"408 " in answers[4]


@pytest.mark.anyio
async def test_a_client_that_reads_nothing_of_its_answer_is_closed() -> None:
    ended = asyncio.Event()

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        gone = asyncio.create_task(disconnect_told(receive))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not gone.done():
            await send({"type": "http.response.body", "body": bytes(1 << 16), "more_body": True})
            await asyncio.sleep(0)
        ended.set()

    async with listening(endless) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        writer.write(GET)
        async with asyncio.timeout(15):
            await ended.wait()
        writer.transport.abort()


async def disconnect_told(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@pytest.mark.anyio
@pytest.mark.parametrize("head", [b"GET / HTTP/1.1\r\nX: ", b"GET /"], ids=["header", "url"])
async def test_a_head_of_64_megabytes_is_refused_while_it_comes(world: World, head: bytes) -> None:
    async with listening(application(world.context)) as port:
        assert await taken(port, head, 64 << 20) < 16 << 20
        assert error_of(await told(port, head + b"a" * 8192)) == (431, "head_too_large")
        assert error_of(await told(port, b"no http\r\n\r\n")) == (400, "invalid_http")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            longest = {"X": "a" * 7500}
            assert (await http.get("/livez", headers=longest)).status_code == 200


async def taken(port: int, head: bytes, most: int) -> int:
    """How many bytes of a head without an end the server takes, up to `most`."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head)
    for sent in range(0, most, 65_536):
        try:
            writer.write(b"a" * 65_536)
            await writer.drain()
        except ConnectionError:
            return sent
    return most


@pytest.mark.anyio
async def test_whoever_waits_longest_without_a_request_makes_room_for_the_next(world: World) -> None:
    async with listening(application(world.context), LIMITS.model_copy(update={"head_seconds": 60})) as port:
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(100)]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            assert (await http.get("/livez")).status_code == 200
        async with asyncio.timeout(5):
            assert await idle[0][0].read() == b""
        assert not idle[-1][0].at_eof()
        for _, writer in idle:
            writer.transport.abort()


@pytest.mark.anyio
async def test_while_every_connection_is_busy_the_next_is_told_503() -> None:
    async def busy(scope: Any, receive: Any, send: Any) -> None:
        await disconnect_told(receive)

    async with listening(busy) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(LIMITS.open)]
        for _, writer in held:
            writer.write(GET)
        await asyncio.gather(*(writer.drain() for _, writer in held))
        async with asyncio.timeout(5):
            answer = b""
            while not answer:  # until the last of those held has been heard
                answer = await told(port, b"")
        assert error_of(answer) == (503, "too_many_connections")
        for _, writer in held:
            writer.transport.abort()


def test_the_soft_limit_of_descriptors_is_raised_and_the_rest_is_held_back() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
        assert room_for(2048) == 2048
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 2048 + 256
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_client_is_served_beside_1100_idle_connections_at_1024_descriptors(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    room_for(2048)  # this process holds the other ends
    with fake_server(tmp_path, files=(1024, 1024)) as server, ExitStack() as idle:
        url, log = server.url, server.log
        port = int(url.rpartition(":")[2])
        for _ in range(1100):
            idle.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        began = time.monotonic()
        assert httpx.get(f"{url}/livez", timeout=10).status_code == 200
        assert httpx.post(f"{url}/v1/search", json={"prompt": "?\n"}, timeout=10).status_code == 200
        assert time.monotonic() - began < 10
    assert log.stat().st_size < 4096, log.read_text()
    assert "leaves room for 768 connections of the 2048" in log.read_text()
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_connections_that_cannot_be_accepted_fill_no_log(tmp_path: Path) -> None:
    with fake_server(tmp_path, files=(1024, 1024), FAKE_FILES_LEFT="40") as server, ExitStack() as idle:
        url, log = server.url, server.log
        port = int(url.rpartition(":")[2])
        for _ in range(80):
            idle.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        deadline = time.monotonic() + 20
        while "cannot be accepted" not in log.read_text():
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        idle.close()
        assert httpx.get(f"{url}/livez", timeout=10).status_code == 200
    assert log.stat().st_size < 4096, log.read_text()
