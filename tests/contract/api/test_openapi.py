"""The OpenAPI document held against the server: requests generated from it, every check of schemathesis."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import BaseSchema, GenerationMode
from schemathesis.config import SchemathesisConfig

from fakes import FakePolicy, FakeScorer
from ramify.api.app import application
from ramify.api.documentation import BY_PATH

from .world import FakeEngines, a_world

pytestmark = pytest.mark.timeout(170)
EXAMPLES = 12
"""Requests generated for each route, allowed by its schema, and again as many that are not."""
KEY = {"name": "all", "key": "all-all-all-all-all", "scopes": ["search", "log", "feedback"]}
HEADERS = {"Authorization": f"Bearer {KEY['key']}"}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server behind a real socket, on an event loop of its own; its model is the fake one."""
    ready, stop = threading.Event(), asyncio.Event()
    found: list[str] = []
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        folder = tmp_path_factory.mktemp("openapi")
        anything = FakePolicy(lambda text: {"a\n": 0.6, "": 0.4}, prompt="")
        engines = FakeEngines(anything, FakeScorer(lambda text: 0.5, prompt=""))
        async with a_world(folder, engines, auth={"keys": [KEY]}, limits={"deadline_seconds": 2.0}) as world:
            config = uvicorn.Config(
                application(world.context), port=0, log_config=None, lifespan="off", access_log=False
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
    assert ready.wait(30)
    yield found[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join(30)
    loop.close()


@pytest.fixture(scope="module")
def document(url: str) -> BaseSchema:
    """A request that its schema allows may still be refused with 400: fields depend on each other."""
    accepted = {"expected-statuses": ["2xx", "400", "404", "409", "413", "422", "429", "5xx"]}
    config = SchemathesisConfig.from_dict({"checks": {"positive_data_acceptance": accepted}})
    return schemathesis.openapi.from_url(f"{url}/openapi.json", config=config)


@pytest.mark.parametrize(("path", "method"), list(BY_PATH), ids=lambda value: value)
def test_every_route_does_what_its_document_says(
    document: BaseSchema, url: str, path: str, method: str
) -> None:
    operation = document[path][method.upper()]
    for mode in GenerationMode:

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            phases=(Phase.explicit, Phase.generate),
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def holds(case: schemathesis.Case) -> None:
            case.call_and_validate(base_url=url, headers=HEADERS, timeout=20)

        with suppress(Unsatisfiable):  # a route without parameters cannot be asked wrongly
            holds()
