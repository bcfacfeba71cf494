from __future__ import annotations

from collections.abc import Iterator

import pytest

from server_process import ServerProcess, model_flags, start


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One real server on vLLM for every test here; the last one to use it ends it."""
    folder = tmp_path_factory.mktemp("server")
    server = start(folder, model_flags(folder))
    yield server
    server.stop()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
