"""The official JavaScript SDK against a running server: `js/suite.test.mjs`, under the Node of a Python wheel."""

from __future__ import annotations

from pathlib import Path

import pytest

from node import node
from server_process import ServerProcess

from .sdk_requests import KEY

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


def test_the_javascript_sdk_passes_its_suite(javascript_sdk: Path, server: ServerProcess) -> None:
    command = ("--test", "--test-reporter=tap", "suite.test.mjs")
    told = node(javascript_sdk, *command, RAMIFY_URL=server.url, RAMIFY_KEY=KEY)
    assert "# pass 8" in told, told[-4000:]
