"""The OpenAPI document held against a running server: every phase and every check of schemathesis.

Its lists of statuses are ours, each for what the document says too: a request that its schema allows may be refused
where fields depend on each other (400) or name what is not there; a body whose strings are longer than the schema
allows may be too large to be looked into at all (413, which schemathesis alone does not count as a refusal); and a
search whose deadline comes before any answer is 504.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import uvicorn

from fakes import FakePolicy, FakeScorer
from ramify.api.app import application
from ramify.api.documentation import BY_PATH

from .world import SERVING, FakeEngines, a_world

pytestmark = pytest.mark.timeout(600)  # under a minute where nothing else runs
SEED = 1
KEY = {"name": "all", "key": "all-of-the-tests", "scopes": ["search", "log", "feedback"]}
SMALL = {"deadline_seconds": 1.0, "budget_tokens": 2000, "budget_nodes": 200}
BUSY_SECONDS = 120
"""More than a busy machine needs for anything: no clock but the search's own deadline decides what is answered."""
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "400", "404", "409", "413", "422", "504"]
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "409", "413", "422"]
[checks.not_a_server_error]
expected-statuses = ["2xx", "4xx", "504"]
"""


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A server behind a real socket, on an event loop of its own; its model is a fake that takes any prompt."""
    ready, loop, stop = threading.Event(), asyncio.new_event_loop(), asyncio.Event()
    found: list[str] = []

    async def serve() -> None:
        anything = FakePolicy(lambda text: {"a\n": 0.6, "": 0.4}, prompt="")
        patient = {"deadline_seconds": BUSY_SECONDS}
        named = replace(SERVING, name="countdown-tiny")  # as in the document's examples
        engines = FakeEngines(anything, FakeScorer(lambda text: 0.5, prompt=""), serving=named)
        async with a_world(
            tmp_path, engines, auth={"keys": [KEY]}, limits=SMALL, spool=patient, probe=patient
        ) as world:
            config = uvicorn.Config(
                application(world.context),
                port=0,
                log_config=None,
                lifespan="off",
                access_log=False,
                timeout_keep_alive=BUSY_SECONDS,  # longer than it takes to make up the next request
            )
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server._serve())
            while not server.started:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            found.append(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}")
            ready.set()
            await stop.wait()
            server.should_exit = True
            await serving

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert ready.wait(BUSY_SECONDS)
    yield found[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join(BUSY_SECONDS)
    loop.close()


@pytest.mark.parametrize("examples", [3, pytest.param(40, marks=pytest.mark.slow)])
def test_every_route_does_what_its_document_says(url: str, tmp_path: Path, examples: int) -> None:
    """examples: requests made up for each route beside those at the bounds of its schema."""
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
    command += ["--config-file", "schemathesis.toml", "run", f"{url}/openapi.json", "--checks", "all"]
    command += ["--header", f"Authorization: Bearer {KEY['key']}", "--request-timeout", str(BUSY_SECONDS)]
    command += ["--seed", str(SEED), "--max-examples", str(examples), "--continue-on-failure"]
    command += ["--suppress-health-check", "too_slow"]  # which is about making up examples, by the clock
    command += ["--warnings", "off", "--report", "json", "--report-json-path", "report.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["operations"]["tested"] == report["operations"]["total"] == len(BY_PATH)
    assert {phase["status"] for phase in report["phases"].values()} == {"success"}
