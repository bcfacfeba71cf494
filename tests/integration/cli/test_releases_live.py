"""`ramify releases` against the admin listener of a server with readable weights."""

import asyncio
import socket

import pytest
import uvicorn

from contract.api.site import a_site
from integration.cli.test_over_http import command
from ramify.api.app import admin_application

pytestmark = pytest.mark.anyio


async def test_an_operator_activates_looks_and_goes_back(tmp_path):
    async with a_site(tmp_path) as site:
        with socket.socket() as door:
            door.bind(("127.0.0.1", 0))
            config = uvicorn.Config(admin_application(site.context, None), log_config=None, lifespan="off")
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server._serve(sockets=[door]))
            address = f"http://127.0.0.1:{door.getsockname()[1]}"
            said = [
                await command("releases", *words, "--admin", address)
                for words in (["activate", "v000002"], ["status"], ["activate", "v000009"], ["rollback"])
            ]
            server.should_exit = True
            await serving
        served = await site.served()
    assert [code for code, _ in said] == [0, 0, 1, 0]
    assert "v000002 is served (before: v000001)" in said[0][1]
    assert "2 of 2 probes" in said[0][1]
    assert "v000002 (active)" in said[1][1]
    assert "a rollback goes to v000001" in said[1][1]
    assert "404" in said[2][1]
    assert served == "v000001"
