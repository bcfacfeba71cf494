"""Other people's programs against a real server; `make test-clients` runs what is here.

Each program lives in an environment of its own under runs/clients, made once from its file in `requirements/`: their
needs exclude each other's and ours.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from models import write_chat_policy
from ramify.weights import shipped
from server_process import ServerProcess, start

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parents[1] / "runs" / "clients"
INSTALL_SECONDS, RUN_SECONDS = 1800, 600
KEY = "clients-clients-clients"
CONFIG = f"""
[[auth.keys]]
name = "clients"
key = "{KEY}"
scopes = ["search", "log"]
[aliases.careful]
search = {{ algorithm = "mcts", budget = {{ tokens = 400 }} }}
"""
TORCH = "torch==2.13.0+cpu"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"


@dataclass(frozen=True)
class Program:
    """An installed program: `folder` is the root of its virtual environment."""

    folder: Path

    def executable(self, name: str) -> str:
        return str(self.folder / "bin" / name)

    def run(self, name: str, *arguments: str, **environment: str) -> str:
        """Run one of its commands to the end, as `finish` does."""
        return finish([self.executable(name), *arguments], **environment)


def finish(command: list[str], **environment: str) -> str:
    """Run a command to the end; what it wrote on both streams. Fails when the command does."""
    done = subprocess.run(
        command,
        env={**os.environ, "OPENAI_API_KEY": KEY, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=RUN_SECONDS,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def installed(name: str) -> Program:
    """The program of `requirements/NAME.txt`, installed when it is not there yet."""
    requirements = HERE / "requirements" / f"{name}.txt"
    wanted = requirements.read_text()
    folder = ENVIRONMENTS / f"{name}-{hashlib.sha256(wanted.encode()).hexdigest()[:8]}"
    if not (folder / "READY").exists():
        say(f"installing {name}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True, timeout=120)
        pip = [str(folder / "bin" / "pip"), "install", "--quiet"]
        if (
            "torch==" in wanted
            and subprocess.run([*pip, "--no-deps", TORCH], timeout=INSTALL_SECONDS).returncode
        ):
            subprocess.run(
                [*pip, "--no-deps", "--index-url", TORCH_INDEX, TORCH], check=True, timeout=INSTALL_SECONDS
            )
        subprocess.run([*pip, "--requirement", str(requirements)], check=True, timeout=INSTALL_SECONDS)
        (folder / "READY").touch()
    return Program(folder)


def say(text: str) -> None:
    """Tell progress, seen at once under `-s`."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The shipped release, with a key and an alias that searches."""
    folder = tmp_path_factory.mktemp("server")
    config = folder / "ramify.toml"
    config.write_text(CONFIG)
    server = start(folder, [], "--config", str(config))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def chat_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A random policy over single bytes with a chat template: it can write whatever a grammar asks for."""
    folder = tmp_path_factory.mktemp("chat-server")
    config = folder / "ramify.toml"
    config.write_text(CONFIG + '[engine]\ntool_parser = "hermes"\ntool_strict_level = "parameter"\n')
    policy = write_chat_policy(folder / "policy")
    server = start(folder, ["--policy", str(policy), "--model-name", "bytes"], "--config", str(config))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def tokenizer() -> str:
    """The folder of the tokenizer of what `server` serves."""
    return str(shipped() / "policy")
