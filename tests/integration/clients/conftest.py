from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from node import install
from server_process import ServerProcess, model_flags, start

from .sdk_requests import KEY

SUITE = Path(__file__).parent / "js"
CONFIG = f"""
[[auth.keys]]
name = "sdk"
key = "{KEY}"
scopes = ["search", "log", "feedback"]
[[auth.keys]]
name = "reader"
key = "reader-reader-reader"
scopes = ["log"]
[stream]
ping_seconds = 0.05
[engine]
tool_parser = "hermes"
[aliases.deep]
search = {{ algorithm = "best_of_n", budget = {{ simulations = 4 }} }}
"""


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One real server with keys, on vLLM, for the clients' and SDKs' suites and the examples."""
    folder = tmp_path_factory.mktemp("clients-server")
    config = folder / "ramify.toml"
    config.write_text(CONFIG)
    server = start(folder, model_flags(folder), "--config", str(config))
    yield server
    server.stop()


@pytest.fixture(scope="package")
def javascript_sdk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OpenAI's JavaScript SDK, installed once apart from the tree, with the suite beside it."""
    folder = tmp_path_factory.mktemp("javascript") / "js"
    shutil.copytree(SUITE, folder, ignore=shutil.ignore_patterns("node_modules"))
    install(folder)
    return folder


@pytest.fixture
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, timeout=60, max_retries=0) as client:
        yield client
