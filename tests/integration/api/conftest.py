from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from fixtures_adapters import written
from server_process import ServerProcess, model_flags, start

__all__ = ["written"]


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One real server on vLLM for every test here; the last one to use it ends it."""
    folder = tmp_path_factory.mktemp("server")
    server = start(folder, model_flags(folder))
    yield server
    server.stop()


@pytest.fixture
async def http(server: ServerProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:
        yield client


@pytest.fixture
async def admin(server: ServerProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.admin_url, timeout=300) as client:
        yield client


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
