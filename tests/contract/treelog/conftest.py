"""Every test here runs on both stores, and on SQLite with the bodies of trees as objects in a folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from empty_log import empty_log
from fixtures_postgres import postgres_server  # noqa: F401  (a fixture)
from ramify.objects import ObjectOptions
from ramify.treelog import TreeLog


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Clock:
    """Time that stands still until told otherwise."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres), "objects"])
def url(request: Any, tmp_path: Path) -> str:
    """The URL of an empty store."""
    if request.param == "postgresql":
        database: str = request.getfixturevalue("postgres_server").database()
        return database
    return f"sqlite:///{tmp_path}/log.db"


@pytest.fixture
def objects(request: Any, url: str, tmp_path: Path) -> ObjectOptions:
    """Where the bodies of `log` go."""
    in_folder = request.node.callspec.params["url"] == "objects"
    return ObjectOptions(trees=f"file://{tmp_path}/bodies" if in_folder else None)


@pytest.fixture
async def log(url: str, objects: ObjectOptions, clock: Clock, anyio_backend: str) -> AsyncIterator[TreeLog]:
    if url.startswith("sqlite"):
        empty_log(Path(url.removeprefix("sqlite:///")))
    async with await TreeLog.open(url, objects=objects, clock=clock) as opened:
        yield opened
