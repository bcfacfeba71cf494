"""A child process for as long as a block runs, with nothing of it left behind; above all `ramify serve` on free ports.

The server picks its ports itself and names them in the banner that it prints once it is ready: no port is chosen here
that another program could take first. A child ends with the block: SIGTERM, then SIGKILL for it and its engines.
If this process is killed, or the thread ends that started the child, the kernel sends it SIGTERM (Linux only).
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

SERVE: Sequence[str] = (sys.executable, "-m", "ramify", "serve")
"""Command of a server."""
START_SECONDS = 600.0
"""Seconds until a server must be ready: two engines, perhaps on a slow machine."""
STOP_SECONDS = 60.0
"""Seconds that it gets to end by itself."""
BANNER = re.compile(
    r"^Ramify \S+ serves .* at (http://\S+)\n(?:.*\n)*?  admin  (http://\S+)\n(?:.*\n)*?  ask  .*\n",
    re.MULTILINE,
)
"""The lines that a server prints once it is ready; its own address and its admin listener's."""
Stream = int | IO[bytes]
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


class NotServing(RuntimeError):
    """The server ended, or was not ready in time."""


@dataclass(frozen=True, slots=True)
class LaunchedServer:
    """A server that runs as a child."""

    url: str
    admin_url: str
    _child: subprocess.Popen[bytes]
    _log: Path
    _begin: int
    """Bytes of the log that are of servers before it."""

    def fault(self, within: float) -> str | None:
        """Wait up to `within` seconds for its end; say in a line how it ended, or return None if it runs on."""
        try:
            status = self._child.wait(within)
        except subprocess.TimeoutExpired:
            return None
        errors = [line for line in _output(self._log, self._begin).splitlines() if " ERROR " in line]
        said = f"its last error: {errors[-1]}" if errors else "without an error in its log"
        return f"the server ended with status {status}, {said}"


@contextmanager
def launched(
    flags: Sequence[str], log: Path, tell: Callable[[float, str], object] = lambda seconds, line: None
) -> Iterator[LaunchedServer]:
    """Run `ramify serve` with these flags; yield it once it is ready.

    log: the file that its output is appended to. tell: called four times a second while it starts, with the seconds
    that it has taken and the line that it wrote last. Raises `NotServing` with the end of its output.
    """
    begin = log.stat().st_size if log.exists() else 0
    command = [*SERVE, "--host", "127.0.0.1", "--port", "0", "--admin-port", "0", *flags]
    with (
        log.open("ab") as output,
        child_process(command, subprocess.DEVNULL, output, subprocess.STDOUT) as child,
    ):
        yield LaunchedServer(*_ready(child, log, begin, tell), child, log, begin)


@contextmanager
def child_process(
    command: Sequence[str], stdin: Stream, stdout: Stream, stderr: Stream
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command; the streams are as `subprocess.Popen` takes them."""
    child = subprocess.Popen(
        command,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,
    )
    try:
        yield child
    finally:
        end(child)


def _ready(
    child: subprocess.Popen[bytes], log: Path, begin: int, tell: Callable[[float, str], object]
) -> tuple[str, str]:
    """Wait for the banner in `log`, from byte `begin` on, and return its two addresses."""
    started = time.monotonic()
    while (waited := time.monotonic() - started) < START_SECONDS:
        ended = child.poll()
        said = _output(log, begin)
        if banner := BANNER.search(said):
            return banner[1], banner[2]
        if ended is not None:
            raise NotServing(f"the server ended with status {ended}:\n{_tail(said)}")
        tell(waited, _tail(said, lines=1))
        with suppress(subprocess.TimeoutExpired):
            child.wait(0.25)
    raise NotServing(f"the server was not ready after {START_SECONDS:.0f} s:\n{_tail(said)}")


def end(child: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM, and after a while SIGKILL, to the child and all that it started."""
    if child.poll() is None:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(STOP_SECONDS)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _output(log: Path, begin: int) -> str:
    with log.open("rb") as written:
        written.seek(begin)
        return written.read().decode(errors="replace")


def _tail(text: str, lines: int = 15) -> str:
    return "\n".join(text.splitlines()[-lines:])


def _end_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
