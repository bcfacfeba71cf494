"""A server of one's own for as long as a command runs; it never outlives the command."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
from rich.console import Console

from ramify.cli.terminal import ended_as_interrupted
from ramify.engines.progress import SAID

DEADLINE = 600.0
"""Seconds until a server must be ready: two engines, perhaps on a slow machine."""
GRACE = 30.0
"""Seconds that it gets to end by itself."""
_PR_SET_PDEATHSIG = 1


class NotServing(RuntimeError):
    """The server ended, or was not ready in time."""


@contextmanager
def serving(flags: Sequence[str], log: Path, console: Console) -> Iterator[str]:
    """Run `ramify serve` on a free port and yield its address once it is ready. Its output goes to `log`.

    Raises `NotServing` with the end of that output. Ends the server and its engines however the block is left,
    SIGTERM and SIGHUP included; SIGKILL is seen to by the kernel, which ends the server with its parent.
    """
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [
        sys.executable,
        "-m",
        "ramify",
        "serve",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--admin-port",
        "0",
        *flags,
    ]
    with ended_as_interrupted(), log.open("wb") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
        try:
            with console.status("starting the server …") as status:
                _wait_ready(
                    child,
                    address,
                    log,
                    lambda seconds: status.update(phase_of(log) or f"starting the server … {seconds:.0f} s"),
                )
            yield address
        finally:
            end(child)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_ready(
    child: subprocess.Popen[bytes], address: str, log: Path, tell: Callable[[float], object]
) -> None:
    started = time.monotonic()
    with httpx.Client(base_url=address, timeout=15.0) as http:
        while (waited := time.monotonic() - started) < DEADLINE:
            if child.poll() is not None:
                raise NotServing(f"the server ended with status {child.returncode}:\n{tail(log)}")
            with suppress(httpx.HTTPError):
                if http.get("/readyz").is_success:
                    return
            tell(waited)
            with suppress(subprocess.TimeoutExpired):
                child.wait(0.25)
    raise NotServing(f"the server was not ready after {DEADLINE:.0f} s:\n{tail(log)}")


def end(child: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then after a while SIGKILL, for the child and all it started."""
    if child.poll() is None:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(GRACE)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def phase_of(log: Path) -> str:
    """The server's last word on its start; empty before there is one."""
    said = [line for line in tail(log).splitlines() if line.startswith(SAID)]
    return said[-1] if said else ""


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
