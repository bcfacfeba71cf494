"""The pipes of one test: what it is fed, and what it writes."""

from __future__ import annotations

import contextlib
import os
import select
from types import TracebackType
from typing import Self

MAX_OUTPUT = 1 << 20
"""Bytes that a program may write for one test, both streams together."""
CHUNK = 1 << 16


class Streams:
    """Four pipes, without a wait: job and standard input, output and error. A context manager, which closes them."""

    def __init__(self, job: bytes, stdin: bytes) -> None:
        self.theirs: list[int] = []
        """The other ends, in the order above, until `hand_over`."""
        self._rest: dict[int, memoryview] = {}
        self._kept: dict[int, bytearray] = {}
        try:
            for data in (job, stdin):
                theirs, ours = os.pipe()
                self.theirs.append(theirs)
                self._rest[ours] = memoryview(data)
            for _ in ("output", "error"):
                ours, theirs = os.pipe()
                self.theirs.append(theirs)
                self._kept[ours] = bytearray()
        except BaseException:
            self.close()
            raise
        self.poll = select.poll()
        """The descriptors with which something can be done, which is what `handle` does."""
        for fd in self._rest:
            self.poll.register(fd, select.POLLOUT)
        for fd in self._kept:
            self.poll.register(fd, select.POLLIN)
        for fd in (*self._rest, *self._kept):
            os.set_blocking(fd, False)
        self._out, self._err = self._kept.values()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def out(self) -> str:
        """The standard output so far, as text."""
        return self._out.decode(errors="replace")

    @property
    def err(self) -> str:
        """The standard error so far, as text."""
        return self._err.decode(errors="replace")

    @property
    def too_long(self) -> bool:
        """Tell whether more was written than is allowed."""
        return len(self._out) + len(self._err) > MAX_OUTPUT

    def hand_over(self) -> None:
        """Close the other ends, which are in other hands now."""
        while self.theirs:
            os.close(self.theirs.pop())

    def handle(self, fd: int) -> None:
        """Write to a pipe what it takes, or read what it has, and close it once there is no more."""
        if fd in self._rest:
            self._feed(fd)
        else:
            self._read(fd)

    def drain(self) -> None:
        """Read what is left, once nobody writes any more."""
        for fd in tuple(self._kept):
            while fd in self._kept and not self.too_long:
                self._read(fd)

    def close(self) -> None:
        """Close all that is open."""
        self.hand_over()
        for fd in (*self._rest, *self._kept):
            os.close(fd)
        self._rest, self._kept = {}, {}

    def _feed(self, fd: int) -> None:
        rest = self._rest[fd]
        with contextlib.suppress(BlockingIOError):
            try:
                rest = rest[os.write(fd, rest[:CHUNK]) :] if rest else rest
            except BrokenPipeError:
                rest = rest[:0]
        self._rest[fd] = rest
        if not rest:
            del self._rest[fd]
            self._done(fd)

    def _read(self, fd: int) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(fd, CHUNK)
            self._kept[fd] += data
            if not data:
                del self._kept[fd]
                self._done(fd)

    def _done(self, fd: int) -> None:
        self.poll.unregister(fd)
        os.close(fd)
