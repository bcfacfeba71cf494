from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from fixtures_adapters import written
from server_process import ServerProcess, model_flags, start

__all__ = ["written"]


SETTINGS = """
drain_seconds = 5.0
[engine]
dtype = "float32"  # a draw is then its seed's own: see operations.md
[checkpoints]
seconds = 0.2
"""


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One real server on vLLM for every test here; one test kills it and starts it again, the last one ends it."""
    folder = tmp_path_factory.mktemp("server")
    config, weights = folder / "ramify.toml", folder / "weights"
    config.write_text(SETTINGS)
    weights.mkdir()
    server = start(folder, model_flags(folder), "--config", str(config), "--weights", str(weights))
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
