"""The whole server on fake engines as a process of its own, on a port that it keeps when it is started again."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).parent
PROGRAM = TESTS / "contract" / "api" / "fake_server.py"
START_SECONDS = 60


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(eq=False)
class FakeServer:
    """One server, which may be ended and started again."""

    folder: Path
    variables: dict[str, str]
    """Its settings, and what `fake_server` reads beside them."""
    files: tuple[int, int] | None = None
    """Soft and hard limit of its descriptors."""
    url: str = ""
    admin_url: str = ""
    process: subprocess.Popen[str] = field(init=False)

    @property
    def log(self) -> Path:
        """Its standard error."""
        return self.folder / "log"

    def start(self) -> None:
        """Return once it is served."""
        limit = self.files
        with self.log.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, str(PROGRAM), str(self.folder)],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=os.environ | {"PYTHONPATH": f"{TESTS}:{TESTS / 'contract'}"} | self.variables,
                preexec_fn=None
                if limit is None
                else lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limit),
            )
        assert self.process.stdout is not None
        banner = self.process.stdout.readline()
        assert " at http" in banner, self.log.read_text()
        self.url = banner.split()[-1]
        while "  ask  " not in (line := self.process.stdout.readline()):
            if admin := re.search(r"  admin  (\S+)", line):
                self.admin_url = admin[1]

    def terminate(self) -> None:
        """SIGTERM: it drains."""
        self.process.send_signal(signal.SIGTERM)

    def ended(self, seconds: float = 30) -> int:
        """Wait for its end; the exit code."""
        self.process.communicate(timeout=seconds)
        return self.process.returncode

    def kill(self) -> None:
        """SIGKILL; without effect on one that has ended."""
        assert self.process.stdout is not None
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@contextmanager
def fake_server(
    folder: Path, *, files: tuple[int, int] | None = None, **variables: str
) -> Iterator[FakeServer]:
    """A server that is asked to end with the block, and must then end well if nobody has ended it before."""
    server = FakeServer(folder, variables, files)
    try:
        server.start()
        yield server
        if server.process.poll() is None:
            server.terminate()
            assert server.ended() == 0, server.log.read_text()
    finally:
        server.kill()
