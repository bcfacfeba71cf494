"""`Sandbox`: `run` has a program do one test and returns what it wrote.

A sandbox serves one program after another: its process 1 never sees a program or a test, and each test has a process
namespace, pipes and limits of its own (`driver`). Everything that comes out is material of unknown worth: bounded in
bytes and time, and never a verdict.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from ramify.sandbox.bubblewrap import Bubblewrap, SandboxFailed
from ramify.sandbox.streams import Streams

Status = Literal["done", "error", "cpu", "idle", "wall", "output"]
"""`done`: it exited with 0. `error`: it raised, exited otherwise or was killed by a signal of its own. `cpu`: it used
up its processor time. `idle`: it slept or waited too long, with nothing to wait for. `wall`: it did none of these in
all the time that it had, so it cannot have got the processor. `output`: it wrote too much."""

STARTING = 20.0
"""Seconds that a sandbox may take to start."""
IDLE = 10.0
"""Seconds that a program may be idle: neither running nor waiting for a processor."""
LOOK, SOON = 1.0, 0.05
"""Seconds between two looks whether it is; and if it looks so, while a thread of it could run."""
PRELOADING = 90.0
"""Seconds beside these that code of ours may take to be loaded."""
PREPARING = 60.0
"""Seconds that it may take to prepare a test."""
GRACE = 15.0
"""Seconds that a program may take to be killed."""
LEAVING = 1.0
"""Seconds that a sandbox may take to leave."""
MAX_SAID = 300
"""Characters of bubblewrap's own words that an error repeats."""
NOBODY = 65534
CREDENTIALS = struct.Struct("3i")
"""Process, user and group of whoever sent a message."""
ENDED = struct.Struct("=i4x4q")
"""A process's status, its seconds and microseconds of its own, and those of the kernel on its behalf."""
TICKS = os.sysconf("SC_CLK_TCK")


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
    idle: float
    """Seconds for which it was idle when it was last looked at, which it is every second."""


class Sandbox:
    """A sandbox, which starts with its first test and again after a failure. A context manager: it starts on the way
    in, and everything in it is killed on the way out. Not for two threads at once.

    `preload` is code of ours that runs as it starts, without a test's limits; tests see its names. If it has a function
    `prepare`, process 1 calls it before a test that asks for it. `folders` of packages may be imported from, read-only.
    Raises `SandboxFailed` whenever the sandbox itself does not do its part.
    """

    def __init__(self, bubblewrap: Bubblewrap, *, preload: str = "", folders: Sequence[str] = ()) -> None:
        self._bubblewrap, self._preload, self._folders = bubblewrap, preload, folders
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(
        self,
        program: Program,
        given: Any,
        *,
        call: bool,
        wall: float,
        patience: float = IDLE,
        prepare: list[Any] | None = None,
    ) -> Ended:
        """Run a program on one test: call its function with a list of arguments, or give it a standard input.

        `wall`: seconds that may pass, so many that only a program that gets no processor needs them. `patience`:
        seconds for which it may be idle. `prepare`:
        arguments for the function of that name in `preload`. What it makes is there for this and later tests, so
        nothing of an answer may be among them.
        """
        job = {"code": program.code, "cpu": program.cpu, "memory": program.memory}
        if call:
            job |= {"function": program.function, "arguments": given}
        try:
            if self._process is None or self._process.poll() is not None:
                self.close()
                self._start()
            with Streams(json.dumps(job).encode(), b"" if call else given.encode()) as streams:
                return self._watch(streams, program, wall, patience, prepare)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the sandbox and all in it: it leaves by itself once its orders end, and is killed if it does not."""
        if self._process is None:
            return
        self._control.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(LEAVING)
        self._process.kill()
        self._process.wait()
        self._process.stderr.close()  # type: ignore[union-attr]
        self._process = None

    # -- starting -----------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        drop = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        with theirs:
            try:
                self._process = subprocess.Popen(
                    self._bubblewrap.command(self._preload, self._folders),
                    stdin=theirs,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    cwd="/",
                    env={},
                    **drop,  # type: ignore[call-overload]
                )
            except OSError as error:
                self._control.close()
                raise SandboxFailed(f"bubblewrap cannot be started: {error}") from error
        word, _ = self._hear(STARTING + (PRELOADING if self._preload else 0))
        if word != b"ready":
            raise SandboxFailed(f"the sandbox is {word.decode(errors='replace')}")

    # -- one test -----------------------------------------------------------------------------------------------------

    def _watch(
        self, streams: Streams, program: Program, wall: float, patience: float, prepare: list[Any] | None
    ) -> Ended:
        """Start a test and see to it until it has ended, by itself or by us."""
        self._say(json.dumps(prepare).encode(), streams.theirs)
        streams.hand_over()
        streams.poll.register(self._control, select.POLLIN)
        if not self._attend(streams, time.monotonic() + STARTING + (0 if prepare is None else PREPARING)):
            raise SandboxFailed("a test did not start in time")
        word, process = self._hear(STARTING)
        if word != b"started":
            raise SandboxFailed("a test did not start")

        idleness = Idleness(process)
        over = self._over(streams, idleness, wall, patience)
        if over:
            self._say(b"kill")
        status, *used = ENDED.unpack_from(self._hear(GRACE)[0])
        code, cpu = os.waitstatus_to_exitcode(status), used[0] + used[2] + (used[1] + used[3]) / 1e6
        streams.drain()
        return Ended(
            status=_status(over, code, cpu / program.cpu, streams),
            out=streams.out,
            err=streams.err,
            cpu=cpu,
            idle=idleness.seconds,
        )

    def _over(self, streams: Streams, idleness: Idleness, wall: float, patience: float) -> Status | None:
        """Feed and read a test until it has ended, or is over a limit of time or output: which."""
        began = time.monotonic()
        look = began + min(LOOK, patience, wall)
        while not self._attend(streams, look):
            if streams.too_long:
                return "output"
            now = time.monotonic()
            over = now >= began + wall
            left = patience - idleness.look(now - began, by_threads=not over)
            if left <= 0 and not idleness.runnable:
                return "idle"
            if over:
                return "wall"
            look = min(now + (min(LOOK, left) if left > 0 else SOON), began + wall)
        return None

    def _attend(self, streams: Streams, until: float) -> bool:
        """Feed and read a test until there is word from inside; False if that takes too long, or too much comes."""
        while not streams.too_long and (left := until - time.monotonic()) > 0:
            ready = [fd for fd, _ in streams.poll.poll(left * 1000)]
            if self._control.fileno() in ready:
                return True
            for fd in ready:
                streams.handle(fd)
        return False

    # -- words --------------------------------------------------------------------------------------------------------

    def _say(self, word: bytes, fds: Sequence[int] = ()) -> None:
        try:
            socket.send_fds(self._control, [word], fds)
        except ConnectionError:
            raise SandboxFailed(self._obituary()) from None
        except OSError as error:
            raise SandboxFailed(f"a word of {len(word)} bytes cannot be said: {error}") from error

    def _hear(self, seconds: float) -> tuple[bytes, int]:
        """Return a word from inside, and the process that said it."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        if not poll.poll(seconds * 1000):
            raise SandboxFailed("the sandbox did not answer in time")
        try:
            word, ancillary, _, _ = self._control.recvmsg(256, socket.CMSG_SPACE(CREDENTIALS.size))
        except ConnectionError:
            word, ancillary = b"", []
        if not word:
            raise SandboxFailed(self._obituary())
        return word, CREDENTIALS.unpack(ancillary[0][2])[0]

    def _obituary(self) -> str:
        assert self._process is not None
        self._process.kill()
        said = os.read(self._process.stderr.fileno(), 4096).decode(errors="replace").strip()  # type: ignore[union-attr]
        return f"the sandbox ended: {said.splitlines()[-1][:MAX_SAID] if said else 'without a word'}"


def _status(over: Status | None, code: int, share: float, streams: Streams) -> Status:
    """Return how a program ended that used so large a share of its processor time. Raises `SandboxFailed`."""
    # A kill that is not ours comes from the kernel, at twice the processor time, or from outside: it cannot do that to
    # itself. The kernel's limit counts ticks, which on a busy machine are up to twice what was used.
    if code == -signal.SIGKILL and not over and share < 1:
        raise SandboxFailed("the program was killed from outside, as by a machine that is out of memory")
    if code == -signal.SIGXCPU or share >= 1 or (over in ("idle", "wall") and share >= 0.9):
        return "cpu"
    if streams.too_long:
        return "output"
    return over or ("error" if code else "done")


class Idleness:
    """How long a process has neither run nor waited for a processor.

    A thread that has ended counts with what it had waited when it was last seen, and one that waits now with all but
    this wait: so a process that seems idle is not while a thread of it is `runnable`.
    """

    def __init__(self, process: int) -> None:
        self._process = process
        self._waited: dict[str, int] = {}
        """Nanoseconds, by thread."""
        self.seconds = 0.0
        """Seconds for which it was idle when last looked at; 0 if not known."""
        self.runnable = False
        """True if a thread ran, or waited for a processor, when last looked at."""

    def look(self, passed: float, *, by_threads: bool) -> float:
        """Return how many of the seconds that passed it was idle.

        Threads that wait at once are counted as often as there are (`by_threads`), which spares those that wait in
        turn; or only the one that waited longest, so that nobody buys time to sleep by having many threads wait.
        """
        folder, states = Path(f"/proc/{self._process}"), []
        for task in folder.glob("task/*"):
            with contextlib.suppress(OSError):  # a thread that has just ended
                self._waited[task.name] = int((task / "schedstat").read_text().split()[1])
                states.append(_after_name(task / "stat")[0])
        self.runnable = "R" in states
        self.seconds = 0.0
        with contextlib.suppress(OSError, ValueError):  # the process has just ended, or none of this is known
            ran = sum(map(int, _after_name(folder / "stat")[11:13])) / TICKS
            waited = (sum if by_threads else max)(self._waited.values()) / 1e9
            self.seconds = max(0.0, passed - ran - waited)
        return self.seconds


def _after_name(stat: Path) -> list[str]:
    """Return the fields of a /proc/…/stat behind the program's name, which may hold anything."""
    return stat.read_text().rpartition(")")[2].split()
