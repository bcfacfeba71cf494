"""A server that is cut off from PostgreSQL, over a real network."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path

import pytest

from fixtures_postgres import a_postgres, find_binaries
from network import a_network
from ramify.treelog import TreeLog
from ramify.treelog.store import SILENCE, parse_url, writer_engine
from treelog_trees import make_tree

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]
TESTS = Path(__file__).parents[2]
SOON = SILENCE + 15
"""Seconds: half of those for which a transaction may idle otherwise."""


async def test_a_server_that_is_cut_off_as_it_writes_does_not_hold_up_the_others() -> None:
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("NO POSTGRESQL")
    with a_network(1) as network, a_postgres(binaries, network.here["data"], network.data) as database:
        (place,), url = network.places, f"postgresql://ramify@{network.here['data']}/postgres"
        async with await TreeLog.open(database.database()) as log:
            holder = await asyncio.create_subprocess_exec(
                *place.command(sys.executable, str(Path(__file__).with_name("lock_holder.py")), url),
                stdout=asyncio.subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": str(TESTS)},
            )
            try:
                assert holder.stdout is not None
                assert await asyncio.wait_for(holder.stdout.readline(), 60) == b"held\n"
                place.cut("data")
                async with asyncio.timeout(SOON):
                    assert await log.append(make_tree()) == 1
            finally:
                holder.kill()
                await holder.wait()
        engine = writer_engine(parse_url(url))
        async with engine.connect() as conn:
            raw = await conn.get_raw_connection()
            at = raw.driver_connection._transport.get_extra_info("socket")  # type: ignore[union-attr]
            assert at.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1000 * SILENCE
            assert at.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        await engine.dispose()
