"""A server as a child of `ramify-trainer loop`: which errors are of its end, and how long anybody waits for one."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from fake_process import free_port
from ramify import launcher
from ramify.settings import load
from ramify_client import AsyncClient, ConnectionFailed, RamifyError, RateLimited, ServerError
from ramify_trainer.errors import CollectionFailed
from ramify_trainer.loop.demo import ChildTransport, ServerLost, running_server

LIVES = 20
"""Seconds, below `launcher.STOP_SECONDS`: whoever waits for the child's end as long sees it."""
PROGRAM = f"""
import socket, sys
print(*sys.argv)
with socket.create_server(("127.0.0.1", 0)) as listener:
    listener.settimeout({LIVES})
    url = "http://127.0.0.1:%d" % listener.getsockname()[1]
    print("Ramify 0 serves nothing at", url)
    print("  admin ", url)
    print("  ask  curl", flush=True)
    listener.accept()
raise SystemExit(3)
"""
"""A child that ends with status 3 once somebody connects, or with another after `LIVES` seconds."""


@pytest.fixture(autouse=True)
def _its_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "SERVE", (sys.executable, "-ISc", PROGRAM))


def collection_failed(cause: RamifyError) -> CollectionFailed:
    failed = CollectionFailed("round 1, 0 of 6 searched")
    failed.__cause__ = cause
    return failed


def test_tasks_of_other_packages_reach_the_server(tmp_path: Path) -> None:
    tasks = {"tour": "research.tour.task:Tour"}
    with running_server(tmp_path, tmp_path / "weights", "shipped", tasks):
        pass
    assert f"--config {tmp_path / 'server.toml'}" in (tmp_path / "server.log").read_text()
    assert load(tmp_path / "server.toml").extensions.tasks == tasks


LIMITED = RateLimited("429: too many", status=429)
UNAVAILABLE = ServerError("503: no engine", status=503)


@pytest.mark.parametrize(
    "error", [LIMITED, collection_failed(LIMITED), ServerError("500: a mistake", status=500)]
)
def test_an_error_of_a_server_that_answers_comes_out_at_once(tmp_path: Path, error: Exception) -> None:
    failing = pytest.raises(type(error))
    with failing as failed, running_server(tmp_path, tmp_path / "weights", "shipped", {}):
        raise error
    assert failed.value is error


@pytest.mark.parametrize("error", [ConnectionFailed("it broke"), UNAVAILABLE, collection_failed(UNAVAILABLE)])
def test_an_error_of_a_server_that_does_not_answer_is_its_end_once_it_has_ended(
    tmp_path: Path, error: Exception
) -> None:
    lost = pytest.raises(ServerLost, match="the server ended with status 3, without an error in its log")
    with lost as raised, running_server(tmp_path, tmp_path / "weights", "shipped", {}) as (url, _):
        socket.create_connection(("127.0.0.1", urlsplit(url).port or 0), timeout=10).close()
        raise error
    assert raised.value.__cause__ is error


@pytest.mark.anyio
async def test_a_child_that_takes_no_connections_is_asked_once() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    async with AsyncClient(url, max_retries=100, transport=ChildTransport()) as client, asyncio.timeout(10):
        with pytest.raises(ServerError, match=f"503: no server answers at {url}"):
            await client.version()
