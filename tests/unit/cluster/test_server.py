"""A replica's server, as its actor sees it."""

from __future__ import annotations

import signal
import sys

import httpx
import pytest

from ramify.cluster.child import Child
from ramify.cluster.server import Launch, Server

pytestmark = pytest.mark.anyio
LAUNCH = Launch(None, {}, "/", 1.0, 1.0)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_one_that_answers_at_all_is_alive_and_one_that_does_not_or_has_ended_is_not() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "hangs":
            raise httpx.ReadTimeout("no answer")
        return httpx.Response(503)

    child = await Child.start((sys.executable, "-c", "input()"))
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        await child.process.wait()
        with pytest.raises(RuntimeError, match="ended with status 1"):
            await Server(LAUNCH, child, "http://full", http).require_alive()
        sleeps = await Child.start((sys.executable, "-c", "import time; time.sleep(600)"))
        try:
            await Server(LAUNCH, sleeps, "http://full", http).require_alive()
            with pytest.raises(httpx.ReadTimeout):
                await Server(LAUNCH, sleeps, "http://hangs", http).require_alive()
        finally:
            await sleeps.end(signal.SIGKILL, 30)
            await child.end(signal.SIGKILL, 30)
