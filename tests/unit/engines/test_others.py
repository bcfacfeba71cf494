"""Policies on other servers, connected to at the start."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ramify.engine_options import EngineOptions, OtherPolicyOptions
from ramify.engines import Tokenizer
from ramify.engines.config import OtherPolicy
from ramify.engines.others import connect_others
from ramify.engines.start import Launch
from ramify.weights import load_release, shipped

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_servers_are_asked_side_by_side_so_that_all_that_are_away_cost_the_time_of_one(
    tmp_path: Path,
) -> None:
    """Neither answers before both are asked."""
    both = asyncio.Barrier(2)

    async def busy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await both.wait()
        writer.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    tokenizer = Tokenizer(load_release(shipped(), verify=False).policy_path)
    launch = Launch("policy", tmp_path, True, EngineOptions(), "float32", None, 0.5, None, 1, False)
    async with await asyncio.start_server(busy, "127.0.0.1", 0) as server, asyncio.timeout(60):
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        others = {name: OtherPolicy(OtherPolicyOptions(url=url, seconds=600)) for name in ("one", "two")}
        assert await connect_others(others, launch, tokenizer) == {}
