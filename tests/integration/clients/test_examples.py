"""Every example runs as it stands against a real server, and says what it is there to show."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from node import NODE, TYPESCRIPT_CLIENT, node, typescript_client
from server_process import ServerProcess

from .sdk_requests import KEY

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples"
ANSWER = re.compile(r"\d [-+*/] \d+ = \d+")
"""A step of arithmetic; which one, and whether it is right, is the model's matter."""


def run(server: ServerProcess, *command: str, **environment: str) -> str:
    """Run an example, with the server's address as its last argument; return its output."""
    done = subprocess.run(
        [*command, server.url],
        env={**os.environ, "RAMIFY_API_KEY": KEY, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copied(folder: Path, name: str) -> str:
    """An example in a folder of its own, beside which packages are found."""
    return str(shutil.copy(EXAMPLES / name, folder))


def test_every_example_is_run_here_and_listed_in_the_docs() -> None:
    names = {path.name for path in EXAMPLES.iterdir()} - {"extension"}  # tested in tests/integration/rewards
    page = (ROOT / "docs" / "clients.md").read_text()
    here = Path(__file__).read_text()
    assert [name for name in names if f"examples/{name}" not in page or f'"{name}"' not in here] == []


def test_curl(server: ServerProcess) -> None:
    told = run(server, "bash", str(EXAMPLES / "curl.sh"))
    assert json.loads(told.splitlines()[1])["status"] == "complete"
    assert "digraph tree" in told
    assert "event: search.completed" in told
    assert '"object":"text_completion"' in told
    assert told.rstrip().endswith("data: [DONE]")


def test_the_python_client(server: ServerProcess) -> None:
    shows_our_client(run(server, sys.executable, str(EXAMPLES / "python_client.py")))


def test_the_typescript_client(server: ServerProcess, tmp_path: Path) -> None:
    link_typescript_client(tmp_path)
    shows_our_client(run(server, str(NODE / "bin" / "node"), copied(tmp_path, "typescript_client.ts")))


def link_typescript_client(folder: Path) -> None:
    """Put the built client where Node finds it; how it is packed is tested in tests/contract/api."""
    (folder / "node_modules").mkdir()
    (folder / "node_modules" / "ramify-client").symlink_to(typescript_client())


def shows_our_client(told: str) -> None:
    assert "served: countdown-tiny" in told
    assert re.search(r"tokens of the whole search: [1-9]\d\d", told)
    assert "\ncompleted" in told
    assert re.search(r"in the log: \d+ tree tree_", told)
    assert re.search(r"in the log: \d+ outcome tree_", told)
    assert re.search(r"verdicts: \[ ?[01]", told)
    assert "refused: search.width" in told


def test_the_readme_of_the_typescript_client(server: ServerProcess, tmp_path: Path) -> None:
    (example,) = re.findall(
        r"^```ts\n(.*?)^```", (TYPESCRIPT_CLIENT / "README.md").read_text(), re.DOTALL | re.MULTILINE
    )
    (tmp_path / "readme.ts").write_text(example.replace("http://127.0.0.1:8000", server.url))
    link_typescript_client(tmp_path)
    told = node(tmp_path, "readme.ts", RAMIFY_API_KEY=KEY)
    assert "\ncomplete\n" in told
    assert "search.width 400: " in told


def test_openais_python_sdk(server: ServerProcess) -> None:
    shows_openais_sdk(run(server, sys.executable, str(EXAMPLES / "openai_python.py")))


def test_openais_javascript_sdk(server: ServerProcess, javascript_sdk: Path, tmp_path: Path) -> None:
    (tmp_path / "node_modules").symlink_to(javascript_sdk / "node_modules")
    told = run(server, str(NODE / "bin" / "node"), copied(tmp_path, "openai_javascript.mjs"))
    shows_openais_sdk(told)


def shows_openais_sdk(told: str) -> None:
    alone, searched = told.split("the best answers of a tree:")
    whole, streamed = searched.split("a tree's best answer, streamed:")
    assert ANSWER.search(alone)
    assert ANSWER.search(whole)
    assert ANSWER.search(streamed)
    assert re.search(r"its tree: /trees/tree_\w+", whole)
    assert re.search(r"tokens of the whole search: [1-9]\d\d", whole)


@pytest.mark.clients  # downloads: `make test-clients`
def test_langchain(server: ServerProcess, tmp_path: Path) -> None:
    """With packages of its own: LangChain's would load a plugin into every test run."""
    pinned = str(ROOT / "requirements" / "langchain.lock")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-compile",
        "--target",
        str(tmp_path),
    ]
    subprocess.run([*pip, "--requirement", pinned], check=True, timeout=300)
    example = str(EXAMPLES / "langchain_chat.py")
    told = run(
        server,
        sys.executable,
        example,
        PYTHONPATH=f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    )
    searched, alone = told.split("the policy alone, as it writes:")
    assert ANSWER.search(searched)
    assert re.search(r"tokens of the whole search: [1-9]\d\d", searched)
    assert ANSWER.search(alone)
