from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from contract.fleet.replicas import write_releases
from fixtures_postgres import postgres_server  # noqa: F401  (a fixture)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def url(request: Any) -> str:
    """The URL of an empty database."""
    database: str = request.getfixturevalue("postgres_server").database()
    return database


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_releases(tmp_path)


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path is short enough for a socket in it."""
    with TemporaryDirectory(prefix="ramify-door-", dir="/tmp") as folder:
        yield Path(folder)
