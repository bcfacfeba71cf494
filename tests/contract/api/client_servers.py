"""Servers for the client: a whole one around a fake model, and one that gives the answers it was told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from ramify.api.app import application
from ramify_client import (
    AsyncClient,
)

from .world import World, a_world, over_network

Handler = Callable[[httpx.Request], httpx.Response]


@asynccontextmanager
async def served(folder: Path, **settings: Any) -> AsyncIterator[tuple[AsyncClient, World]]:
    async with a_world(folder, **settings) as world:
        transport = httpx.ASGITransport(application(world.context), raise_app_exceptions=False)
        async with AsyncClient("http://127.0.0.1:8000", transport=transport) as client:
            yield client, world


@asynccontextmanager
async def served_at_an_address(folder: Path) -> AsyncIterator[AsyncClient]:
    """Serve it at an address, so that what a client says of a stream reaches the server while it lasts."""
    async with (
        a_world(folder) as world,
        over_network(world) as http,
        AsyncClient(str(http.base_url)) as client,
    ):
        yield client


@asynccontextmanager
async def answering(
    *answers: Handler | httpx.Response, **options: Any
) -> AsyncIterator[tuple[AsyncClient, list[Any]]]:
    """A client whose server gives these answers, one after another, and the requests it got."""
    seen: list[httpx.Request] = []
    left = list(answers)

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        answer = left.pop(0)
        return answer(request) if callable(answer) else answer

    async with AsyncClient("http://server", transport=httpx.MockTransport(handle), **options) as client:
        yield client, seen


def refuses(status: int, code: str | None = None, **headers: str) -> httpx.Response:
    error = {"message": "no", "type": "t", "param": "p", "code": code}
    return httpx.Response(status, json={"error": error}, headers={"x-request-id": "req-1", **headers})
