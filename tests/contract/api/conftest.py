from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .site import Site, a_site
from .world import KEYS, World, a_world


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A server without keys."""
    async with a_world(tmp_path) as world:
        yield world


@pytest.fixture
async def keyed(tmp_path: Path) -> AsyncIterator[World]:
    """A server with the keys of `world.KEYS`."""
    async with a_world(tmp_path, auth={"keys": KEYS}) as world:
        yield world


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with a_site(tmp_path) as site:
        yield site
