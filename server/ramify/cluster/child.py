"""A child process of an actor: it is killed if the actor dies, and its last lines explain its end."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

TAIL = 32_768
"""Bytes of its output that are kept."""
LINES = 15
"""Lines that explain its end."""
READ = 1.0
"""Seconds for its last output, once it has ended; a process that it left behind may hold that open for ever."""
POLL = 0.2
"""Seconds between two looks at its output, or for its end."""
DIE_TOGETHER = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv[1]):
    sys.exit("whoever started this has ended")
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""A program that becomes the command once the kernel is told to kill it with its parent. SIGKILL, and no drain: Ray
takes the place of a dead actor to be free, on a GPU too."""


@dataclass(eq=False)
class Child:
    """Make one with `start`. All calls on one event loop, whose thread must live as long as the actor."""

    process: asyncio.subprocess.Process
    _said: bytes = b""
    _reading: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls, command: Sequence[str], folder: str | None = None, variables: Mapping[str, str] | None = None
    ) -> Child:
        """Run a command; its output is repeated on standard error. variables: its environment; `None`: ours."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-ISc", DIE_TOGETHER, str(os.getpid()), *command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=folder,
            env=variables,
            start_new_session=True,
        )
        child = cls(process)
        child._reading = asyncio.create_task(child._read(), name="child-output")
        return child

    async def said(self, pattern: re.Pattern[str]) -> re.Match[str]:
        """Wait for output that matches. Raises `RuntimeError` if it ends before."""
        while not (match := pattern.search(self._said.decode(errors="replace"))):
            self.require_running()
            await asyncio.sleep(POLL)
        return match

    def require_running(self) -> None:
        """Raise `RuntimeError` if it has ended."""
        if self.process.returncode is not None:
            raise RuntimeError(f"ended with status {self.process.returncode}:\n{self.tail()}")

    def tail(self) -> str:
        """Return its last lines."""
        return "\n".join(self._said.decode(errors="replace").splitlines()[-LINES:])

    async def end(self, number: signal.Signals, grace: float) -> None:
        """Send a signal, and SIGKILL, to it and all that it started, if it has not ended after `grace` seconds."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._ended()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self._ended()
        if self._reading is not None:
            await asyncio.wait({self._reading}, timeout=READ)

    async def _ended(self) -> None:
        """Wait for its end. (`Process.wait` waits for the end of its output too, which one that it left behind may hold
        open.)"""
        while self.process.returncode is None:  # noqa: ASYNC110
            await asyncio.sleep(POLL)

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while chunk := await self.process.stdout.read(1 << 16):
            self._said = (self._said + chunk)[-TAIL:]
            sys.stderr.write(chunk.decode(errors="replace"))
            sys.stderr.flush()
