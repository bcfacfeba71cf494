"""The TypeScript client against a real server on vLLM: those of `clients/typescript/test` that need one."""

from __future__ import annotations

import pytest

from node import node, typescript_client
from server_process import ServerProcess

from .sdk_requests import KEY

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


def test_the_typescript_client_passes_its_suite_on_vllm(server: ServerProcess) -> None:
    address = {"RAMIFY_BASE_URL": server.url, "RAMIFY_API_KEY": KEY}
    told = node(
        typescript_client(),
        "--test",
        "--test-timeout=120000",
        "--test-reporter=tap",
        "test/live.test.ts",
        **address,
    )
    assert "# pass 13" in told, told[-4000:]
    assert "# skipped 1" in told, told[-4000:]  # the operators' side, which tests of a fake model drive
