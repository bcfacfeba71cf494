"""Try whether programs can be run on this machine, and try again after a failure."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ramify.sandbox.bubblewrap import SandboxFailed, find
from ramify.sandbox.session import Program, Sandbox

RETRY = 30.0
"""Seconds after which a failure is looked into again."""


class Probe:
    """Find out what keeps programs from being run here, if anything, by running one.

    The first question waits for the trial. A success is kept. A failure is an answer for `retry` seconds; the next
    question after that starts another trial beside it, and does not wait: it may come from an event loop.
    """

    def __init__(self, trial: Callable[[], str | None] | None = None, *, retry: float = RETRY) -> None:
        self._run, self._retry = trial or try_program, retry
        self._asking = threading.Lock()
        self._tried: float | None = None
        """When a trial last ended, on the monotonic clock."""
        self._fault: str | None = None
        self._trial: threading.Thread | None = None

    def fault(self) -> str | None:
        """Say why no program can be run safely; None if one just did."""
        with self._asking:
            if self._tried is None:
                self._try()
            elif self._fault and self._due():
                self._trial = threading.Thread(target=self._try, name="sandbox-probe", daemon=True)
                self._trial.start()
            return self._fault

    def _due(self) -> bool:
        idle = self._trial is None or not self._trial.is_alive()
        return idle and self._tried is not None and time.monotonic() - self._tried >= self._retry

    def _try(self) -> None:
        fault = self._run()
        self._fault, self._tried = fault, time.monotonic()


def try_program() -> str | None:
    """Run a program in a sandbox, and say what went wrong."""
    try:
        with Sandbox(find()) as sandbox:
            program = Program(code="print(input())", cpu=5, memory=256 << 20)
            ended = sandbox.run(program, "7 times 6", call=False, wall=30.0)
    except SandboxFailed as failure:
        return f"code cannot be run safely here: {failure}"
    return (
        None if ended.out == "7 times 6\n" else f"code cannot be run safely here: a trial ended with {ended}"
    )
