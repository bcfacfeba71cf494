"""`ramify releases` against the admin listener of a server with readable weights."""

import asyncio
import socket

import pytest
import uvicorn
from typer.testing import CliRunner

from contract.api.site import a_site
from ramify.api.app import admin_application
from ramify.cli import app

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
                await asyncio.to_thread(CliRunner().invoke, app, ["releases", *words, "--admin", address])
                for words in (["activate", "v000002"], ["status"], ["activate", "v000009"], ["rollback"])
            ]
            server.should_exit = True
            await serving
        served = await site.served()
    assert [done.exit_code for done in said] == [0, 0, 1, 0]
    activated, listed, unknown, _ = (done.output for done in said)
    assert "v000002 is served (before: v000001)" in activated
    assert "2 of 2 probes" in activated
    assert "v000002 (active)" in listed
    assert "a rollback goes to v000001" in listed
    assert "404" in unknown
    assert served == "v000001"
