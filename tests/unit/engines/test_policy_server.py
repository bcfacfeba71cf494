"""Errors about a policy's server, and the key that is in none of them."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from ramify.engine_options import PolicyServerOptions
from ramify.engines.errors import EngineError
from ramify.engines.policy_server import SHORT, PolicyServer

KEY = "s3cret-key-of-the-policy"


@pytest.mark.parametrize("before", [0, SHORT - 10, SHORT - 1])
def test_no_part_of_the_key_is_in_an_error_wherever_it_is_cut(before: int) -> None:
    said = {"error": {"message": "x" * before + KEY}}
    options = PolicyServerOptions.model_validate({"url": "http://gpu-box:8000", "key": KEY})

    async def go() -> None:
        server = PolicyServer(
            options, transport=httpx.MockTransport(lambda request: httpx.Response(401, json=said))
        )
        try:
            await server.ask("/v1/models")
        finally:
            await server.close()

    with pytest.raises(EngineError) as caught:
        asyncio.run(go())
    assert KEY[:4] not in str(caught.value)
