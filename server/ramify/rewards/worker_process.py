"""The outside of one worker process: start it, ask it, kill it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from typing import Any

from ramify.rewards.errors import CallFailed

MAX_REPLY_BYTES = 1 << 20
KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONHOME", "VIRTUAL_ENV")
"""Environment variables that a worker gets; keys and tokens stay here."""


class WorkerProcess:
    """One child interpreter running `ramify.rewards.worker`. Used by one thread, but `kill` by any."""

    def __init__(self, functions: str, memory: int) -> None:
        config = {"functions": functions, "memory": memory, "parent": os.getpid()}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "ramify.rewards.worker", json.dumps(config)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        os.set_blocking(self._in.fileno(), False)
        self._read = b""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def wait_ready(self, seconds: float) -> None:
        """Wait until its functions are imported; raises `CallFailed`."""
        try:
            reply = self._reply(time.monotonic() + seconds)
        except CallFailed as failure:
            raise CallFailed("crash", f"a verifier process did not start: {failure}") from failure
        if "ready" not in reply:
            raise CallFailed("crash", f"a verifier process did not start: {reply.get('message')}")

    def ask(self, line: bytes, seconds: float) -> dict[str, Any]:
        """Send one call and return the reply; raises `CallFailed` after `seconds`, or when the process
        dies."""
        until = time.monotonic() + seconds
        self._send(line + b"\n", until)
        try:
            return self._reply(until)
        except CallFailed as failure:
            if failure.kind == "deadline":
                raise CallFailed("deadline", f"the verifier took more than {seconds:g} s") from None
            raise

    def kill(self) -> None:
        """End it at once; whoever waits for its reply gets `CallFailed`."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def end(self) -> None:
        """Kill it, reap it and close its pipes."""
        self.kill()
        self._process.wait()
        self._in.close()
        self._out.close()

    def _send(self, data: bytes, until: float) -> None:
        while data:
            self._wait(self._in.fileno(), select.POLLOUT, until)
            try:
                data = data[os.write(self._in.fileno(), data) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise CallFailed("crash", self._obituary()) from None

    def _reply(self, until: float) -> dict[str, Any]:
        while b"\n" not in self._read:
            self._wait(self._out.fileno(), select.POLLIN, until)
            chunk = os.read(self._out.fileno(), 1 << 16)
            if not chunk:
                raise CallFailed("crash", self._obituary())
            self._read += chunk
            if len(self._read) > MAX_REPLY_BYTES:
                raise CallFailed("error", f"the verifier's reply has more than {MAX_REPLY_BYTES} bytes")
        line, _, self._read = self._read.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _wait(self, fd: int, event: int, until: float) -> None:
        poll = select.poll()
        poll.register(fd, event)
        if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
            raise CallFailed("deadline", "the time is up")

    def _obituary(self) -> str:
        return f"the verifier process died (exit status {self._process.wait()})"


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
