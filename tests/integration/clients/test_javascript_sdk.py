"""The official JavaScript SDK against a running server: `js/suite.test.mjs`, under the Node of a Python wheel."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from node import install, node
from server_process import ServerProcess

from .sdk_requests import KEY

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]
SUITE = Path(__file__).parent / "js"


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """The suite with its pinned dependencies, installed apart from the tree."""
    folder = tmp_path / "js"
    shutil.copytree(SUITE, folder, ignore=shutil.ignore_patterns("node_modules"))
    install(folder)
    return folder


def test_the_javascript_sdk_passes_its_suite(suite: Path, server: ServerProcess) -> None:
    command = ("--test", "--test-reporter=tap", "suite.test.mjs")
    told = node(suite, *command, RAMIFY_URL=server.url, RAMIFY_KEY=KEY)
    assert "# pass 8" in told, told[-4000:]
