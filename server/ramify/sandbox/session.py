"""One sandbox for one answer: `Sandbox` starts it, `run` gives it a test and returns what the answer wrote.

Everything that comes out is material of unknown worth: bounded in bytes and time, and never a verdict.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import struct
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from ramify.sandbox.bubblewrap import Bubblewrap, SandboxFailed

Status = Literal["done", "error", "cpu", "wall", "output"]
"""`done`: it exited with 0. `error`: it raised, exited otherwise or was killed by a signal. `cpu`: it used up its
processor time. `wall`: it neither ended nor used up its processor time. `output`: it wrote too much."""

STARTING = 20.0
"""Seconds that a sandbox may take to start."""
PRELOADING = 90.0
"""Seconds beside these that code of ours may take to be loaded."""
PREPARING = 60.0
"""Seconds that it may take to prepare a test."""
GRACE = 5.0
"""Seconds past an answer's wall limit at which a sandbox that says nothing has failed."""
LEAVING = 1.0
"""Seconds that a sandbox may take to leave."""
MAX_OUTPUT = 1 << 20
"""Bytes that an answer may write for one test, both streams together."""
MAX_FRAME = 8 * MAX_OUTPUT
MAX_SAID = 300
"""Characters of bubblewrap's own words that an error repeats."""
NOBODY = 65534


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Python source and what it may use, for each test anew."""

    code: str
    function: str = ""
    """A function, or `Class.method`, that tests call; empty: they run the whole program."""
    cpu: int
    """Seconds of processor time."""
    memory: int
    """Bytes of address space."""
    wall: float
    """Seconds that may pass: so many that only a program that waits gets there, even on a busy machine."""
    preload: str = ""
    """Code of ours that runs once, before any test and without its limits; tests see its names. If it has a function
    `prepare`, process 1 calls it before a test that asks for it."""
    folders: tuple[str, ...] = ()
    """Folders of packages that may be imported, read-only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The end of a program on one test."""

    status: Status
    out: str
    """The text that it printed, or its result as `driver.encode` has it, in JSON."""
    err: str
    """The beginning of its standard error; the exception's class and text if it raised."""
    cpu: float
    """Seconds of processor time."""


class Sandbox:
    """A sandbox with one program. A context manager: everything in it is killed on the way out.

    Raises `SandboxFailed` whenever the sandbox itself does not do its part.
    """

    def __init__(self, bubblewrap: Bubblewrap, program: Program) -> None:
        self._program = program
        drop = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        try:
            self._process = subprocess.Popen(
                [*bubblewrap.command(program.folders), "-c", driver_source()],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/",
                env={},
                **drop,  # type: ignore[call-overload]
            )
        except OSError as error:
            raise SandboxFailed(f"bubblewrap cannot be started: {error}") from error
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._in, False)

    def __enter__(self) -> Self:
        try:
            nonce = secrets.token_hex(16)
            until = time.monotonic() + STARTING + (PRELOADING if self._program.preload else 0)
            self._send(
                {
                    "nonce": nonce,
                    "code": self._program.code,
                    "preload": self._program.preload,
                    "folders": self._program.folders,
                    "function": self._program.function,
                    "cpu": self._program.cpu,
                    "wall": self._program.wall,
                    "memory": self._program.memory,
                    "output": MAX_OUTPUT,
                },
                until,
            )
            reply = self._receive(until)
            if reply != {"ready": nonce}:
                raise SandboxFailed(f"the sandbox is not ready: {reply.get('failed', 'it did not say why')}")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, given: Any, *, call: bool, prepare: list[Any] | None = None) -> Ended:
        """Run the program on one test: call its function with a list of arguments, or give it a standard input.

        `prepare` are arguments for the function of that name in the program's `preload`: what it makes is there for
        this and later tests, so nothing of an answer may be among them."""
        until = time.monotonic() + self._program.wall + GRACE + (0 if prepare is None else PREPARING)
        nonce = secrets.token_hex(16)
        self._send({"args" if call else "stdin": given, "prepare": prepare}, until)
        self._send({"nonce": nonce}, until)
        reply = self._receive(until)
        if reply.pop("nonce", None) != nonce:
            raise SandboxFailed("the sandbox answered without its nonce")
        return Ended(**reply)

    def close(self) -> None:
        """End the sandbox and all in it: it leaves by itself once its input ends, and is killed if it does not."""
        self._process.stdin.close()
        with contextlib.suppress(SandboxFailed):
            self._wait(self._out, select.POLLIN, time.monotonic() + LEAVING)
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        self._process.stderr.close()

    def _send(self, frame: dict[str, Any], until: float) -> None:
        body = json.dumps(frame).encode()
        data = memoryview(struct.pack(">I", len(body)) + body)
        while data:
            self._wait(self._in, select.POLLOUT, until)
            try:
                data = data[os.write(self._in, data) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise SandboxFailed(self._obituary()) from None

    def _receive(self, until: float) -> dict[str, Any]:
        (size,) = struct.unpack(">I", self._exactly(4, until))
        if size > MAX_FRAME:
            raise SandboxFailed(f"the sandbox announced {size} bytes")
        frame: dict[str, Any] = json.loads(self._exactly(size, until))
        return frame

    def _exactly(self, size: int, until: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._wait(self._out, select.POLLIN, until)
            more = os.read(self._out, min(size - len(data), 1 << 16))
            if not more:
                raise SandboxFailed(self._obituary())
            data += more
        return bytes(data)

    def _wait(self, fd: int, event: int, until: float) -> None:
        poll = select.poll()
        poll.register(fd, event)
        if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
            raise SandboxFailed("the sandbox did not answer in time")

    def _obituary(self) -> str:
        self._process.kill()
        said = os.read(self._process.stderr.fileno(), 4096).decode(errors="replace").strip()
        return f"the sandbox ended: {said.splitlines()[-1][:MAX_SAID] if said else 'without a word'}"


def driver_source() -> str:
    """Return the text of what runs in the sandbox."""
    return Path(__file__).with_name("driver.py").read_text(encoding="utf-8")
