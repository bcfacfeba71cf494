"""A pool of killable worker processes, for functions that may hang, crash or eat memory.

Each worker is a fresh interpreter (never a fork of this process with its threads and engines) that runs named
functions of one module in its main thread; arguments and results are JSON. A call past its deadline has its
worker killed and a fresh one started. A call ends in a result or in `CallFailed`, never in silence.

One thread of ours drives each worker with blocking pipes, so that the pool belongs to no event loop and works
from any thread: the server, a script that calls `asyncio.run` twice and a test share one pool. (Decided
2026-11-22; asyncio's own subprocesses tie a pool to the loop that made it, and `multiprocessing` runs the
caller's `__main__` again in every worker and sends pickles.)
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from ramify.rewards.errors import CallFailed

MAX_CALL_BYTES = 4 << 20
MAX_REPLY_BYTES = 1 << 20
KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONHOME", "VIRTUAL_ENV")
"""Environment variables that a worker gets; keys and tokens stay here."""


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """The bounds of a pool."""

    workers: int = 2
    deadline: float = 5.0
    """Seconds that one call may run."""
    startup: float = 120.0
    """Seconds that a worker may take to import its functions."""
    memory: int = 1 << 30
    """Bytes of address space of one worker. A call that takes more than half of it fails."""
    queue: int = 4096
    """Calls that may wait for a worker; one more fails at once."""
    patience: float = 120.0
    """Seconds that a call may wait for a worker."""


@dataclass(slots=True)
class _Job:
    call: dict[str, Any]
    deadline: float
    expires: float
    """When it gives up waiting, on the monotonic clock."""
    future: Future[Any]


class Pool:
    """Worker processes for named functions.

    `functions` is the path `package.module:name` of what returns them, name → function; each worker calls it as it
    starts, so that what is slow to import is imported there. Processes start when the first call needs them. `close`
    ends them; so does the end of this process, however it comes.
    """

    def __init__(self, functions: str, limits: PoolLimits | None = None) -> None:
        self.limits = limits or PoolLimits()
        self._functions = functions
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._lanes: list[_Lane] = []
        self._idle = 0
        self._closed = False

    async def call(self, name: str, arguments: Mapping[str, Any], deadline: float | None = None) -> Any:
        """Run a function in a worker; `deadline` (seconds of running, not of waiting) defaults to the pool's.

        Cancelled while it waits, a call is never started; cancelled while it runs, its result is dropped.
        Raises `CallFailed`.
        """
        return await asyncio.wrap_future(self.submit(name, arguments, deadline))

    def submit(self, name: str, arguments: Mapping[str, Any], deadline: float | None = None) -> Future[Any]:
        """Do the same as `call` for code without an event loop: the future ends in a result or in `CallFailed`."""
        seconds = self.limits.deadline if deadline is None else deadline
        call = {"call": name, "arguments": dict(arguments), "deadline": seconds}
        job = _Job(call, seconds, time.monotonic() + self.limits.patience, Future())
        with self._changed:
            if self._closed:
                raise RuntimeError("the pool is closed")
            if len(self._jobs) >= self.limits.queue:
                self._fail(job, CallFailed("overload", f"{self.limits.queue} verifier calls wait already"))
                return job.future
            self._jobs.append(job)
            if len(self._jobs) > self._idle and len(self._lanes) < self.limits.workers:
                self._lanes.append(_Lane(self))
                if len(self._lanes) == 1:
                    atexit.register(self._kill)
                self._lanes[-1].start()
            self._changed.notify()
        return job.future

    @property
    def pids(self) -> list[int]:
        """Return the process ids of the workers that live."""
        return [lane.worker.pid for lane in self._lanes if lane.worker is not None and lane.worker.alive()]

    async def close(self) -> None:
        """Kill the workers and fail what waits or runs (as `crash`); returns when they are gone. May be
        repeated."""
        await asyncio.to_thread(self._shut)

    def _shut(self) -> None:
        self._kill()
        for lane in self._lanes:
            lane.join()

    def _kill(self) -> None:
        atexit.unregister(self._kill)
        with self._changed:
            self._closed = True
            while self._jobs:
                self._fail(self._jobs.popleft(), CallFailed("crash", "the verifiers were shut down"))
            for lane in self._lanes:
                if lane.worker is not None:
                    lane.worker.kill()
            self._changed.notify_all()

    def _next(self) -> _Job | None:
        """Wait for a call to run; `None` when the pool closes."""
        with self._changed:
            while True:
                while not self._jobs and not self._closed:
                    self._idle += 1
                    self._changed.wait()
                    self._idle -= 1
                if self._closed:
                    return None
                job = self._jobs.popleft()
                if time.monotonic() > job.expires:
                    self._fail(
                        job, CallFailed("overload", f"no verifier free for {self.limits.patience:g} s")
                    )
                elif job.future.set_running_or_notify_cancel():
                    return job

    def _adopt(self, lane: _Lane) -> WorkerProcess:
        with self._changed:
            if self._closed:
                raise CallFailed("crash", "the verifiers were shut down")
            lane.worker = WorkerProcess(self._functions, self.limits.memory)
            return lane.worker

    def _fail(self, job: _Job, failure: CallFailed) -> None:
        if job.future.running() or job.future.set_running_or_notify_cancel():
            job.future.set_exception(failure)


class _Lane(threading.Thread):
    """Drives one worker: takes a call, has it run, replaces a worker that died."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(name="verifier", daemon=True)
        self._pool = pool
        self.worker: WorkerProcess | None = None

    def run(self) -> None:
        while (job := self._pool._next()) is not None:
            try:
                result = self._run(job)
            except CallFailed as failure:
                self._pool._fail(job, failure)
            except Exception as error:  # whatever it was, whoever waits for the call hears of it
                self._pool._fail(job, CallFailed("error", f"{type(error).__name__}: {error}"))
            else:
                job.future.set_result(result)
        if self.worker is not None:
            self.worker.end()

    def _run(self, job: _Job) -> Any:
        line = json.dumps(job.call).encode()
        if len(line) > MAX_CALL_BYTES:
            raise CallFailed("error", f"the call has {len(line)} bytes; at most {MAX_CALL_BYTES} are allowed")
        if self.worker is None or not self.worker.alive():
            self._replace()
        assert self.worker is not None
        try:
            reply = self.worker.ask(line, job.deadline)
        except BaseException:
            self.worker.end()
            raise
        if reply.get("last"):
            self.worker.end()
        if "failure" in reply:
            raise CallFailed(reply["failure"], reply["message"])
        return reply["result"]

    def _replace(self) -> None:
        if self.worker is not None:
            self.worker.end()
        worker = self._pool._adopt(self)
        try:
            worker.wait_ready(self._pool.limits.startup)
        except BaseException:
            worker.end()
            raise


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
        """Return its process id."""
        return self._process.pid

    def alive(self) -> bool:
        """Tell whether it still runs."""
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
