"""Progress of a start on standard error: engines take seconds, or minutes if they compile.

On a terminal one line is kept up to date; elsewhere (a log, a pipe) a line is written for every new phase, and at least
one every ten seconds: a silent start is a hung one.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self, TextIO

EVERY = 10.0
"""Seconds between two lines that say the same."""
TICK = 0.25
"""Seconds between two looks."""
SAID = "ramify: starting, "
"""Beginning of every line."""
CLEAR = "\r\x1b[K"
PHASE = ".phase"
"""Ending of the file in the engines' run folder in which an engine keeps what it is doing."""

KV_BYTES = ".kv"
"""Ending of the file that holds the bytes of its KV cache."""


class StartUp:
    """Writer of the newest phase with the seconds since the start, for the length of a `with`."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """stream: `None` is standard error."""
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._began = clock()
        self._phase = self._said = ""
        self._said_at = 0.0
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._ticking = threading.Thread(target=self._tick, name="start-up", daemon=True)

    def tell(self, phase: str) -> None:
        """Name what the start waits for from now on. May be called from any thread, as often as one likes."""
        self._phase = phase
        self.look()

    def look(self) -> None:
        """Write the present phase if it is due."""
        with self._lock:
            now = self._clock()
            if not self._phase or self._ended.is_set():
                return
            line = f"{SAID}{now - self._began:.0f} s: {self._phase}"
            if self._stream.isatty():
                self._write(f"{CLEAR}{line}")
            elif self._phase != self._said or now - self._said_at >= EVERY:
                self._write(f"{line}\n")
                self._said, self._said_at = self._phase, now

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

    def _tick(self) -> None:
        while not self._ended.wait(TICK):
            self.look()

    def __enter__(self) -> Self:
        self._ticking.start()
        return self

    def end(self) -> None:
        """Write nothing more, and leave a terminal's line empty. May be repeated."""
        with self._lock:
            if self._phase and self._stream.isatty() and not self._ended.is_set():
                self._write(CLEAR)
            self._ended.set()

    def __exit__(self, *exc: object) -> None:
        self.end()
        self._ticking.join()


def phases(folder: Path, roles: Sequence[str]) -> str:
    """Return what each engine reports that it is doing, as one line."""
    return ", ".join(
        f"{role} engine {_read(folder / f'{role}{PHASE}') or 'starting its process'}" for role in roles
    )


def kv_bytes(folder: Path, role: str) -> int | None:
    """Bytes of an engine's KV cache, on all its devices; `None` if it has not said."""
    return int(_read(folder / f"{role}{KV_BYTES}") or 0) or None


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""
