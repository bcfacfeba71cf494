"""A real engine and Compose; `make test-compose` runs what is here."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

ROOT = Path(__file__).parents[2]
BUILD_SECONDS, UP_SECONDS, DOWN_SECONDS, EXEC_SECONDS = 2400, 900, 180, 60
Found = TypeVar("Found")


def say(text: str) -> None:
    """Progress, seen at once under `-s`."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def compose_command() -> list[str]:
    """Compose v2 where it is installed, else the older program."""
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.fail("no Docker engine answers `docker info`; start one")
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
        return ["docker", "compose"]
    if shutil.which("docker-compose") is None:
        pytest.fail("neither `docker compose` nor `docker-compose` is installed")
    return ["docker-compose"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Stack:
    """The containers of one project."""

    project: str
    settings: Mapping[str, str]
    """Variables that `.env` would hold."""
    command: list[str] = field(default_factory=compose_command)

    def run(self, *arguments: str, seconds: float, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Output is kept; `check` fails the test with it."""
        done = subprocess.run(
            [*self.command, "-p", self.project, *arguments],
            cwd=ROOT,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout[-3000:]}"
        return done

    def shown(self, *arguments: str, seconds: float) -> None:
        """Output goes where the test's goes, as it comes."""
        say(f"compose {' '.join(arguments)}")
        command = [*self.command, "-p", self.project, *arguments]
        subprocess.run(command, cwd=ROOT, env=self._environment(), timeout=seconds, check=True)

    def inside(self, service: str, *command: str, check: bool = True) -> str:
        """Run a command in a container; return its output."""
        return self.run("exec", "-T", service, *command, seconds=EXEC_SECONDS, check=check).stdout

    def logs(self, service: str) -> str:
        return self.run("logs", "--no-color", "--tail", "100", service, seconds=EXEC_SECONDS).stdout

    def health(self, service: str) -> str:
        """`healthy`, `starting`, `unhealthy`; `none` where it does not run."""
        container = self.run("ps", "-q", service, seconds=EXEC_SECONDS).stdout.strip()
        form = "{{.State.Health.Status}}"
        inspect = ["docker", "inspect", "-f", form, container]
        done = subprocess.run(inspect, capture_output=True, text=True, timeout=EXEC_SECONDS, check=False)
        return done.stdout.strip() or "none"

    def _environment(self) -> dict[str, str]:
        plain = subprocess.run(["docker", "buildx", "version"], capture_output=True).returncode != 0
        return {**os.environ, **self.settings} | ({"DOCKER_BUILDKIT": "0"} if plain else {})


@pytest.fixture
def stack(request: pytest.FixtureRequest) -> Iterator[Callable[..., Stack]]:
    """Makes stacks; their containers and volumes go with the test."""
    made: list[Stack] = []

    def make(**settings: str) -> Stack:
        made.append(Stack(f"ramify-test-{free_port()}", settings))
        return made[-1]

    yield make
    for each in made:
        each.run("down", "-v", "--remove-orphans", seconds=DOWN_SECONDS, check=False)


def until(found: Callable[[], Found | None], seconds: float, what: str) -> Found:
    """Return the result of `found` once it is neither None nor False; ask every second."""
    give_up = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < give_up, f"not within {seconds:.0f} s: {what}"
        time.sleep(1)
    return value
