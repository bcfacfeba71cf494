"""A trainer in a process of its own, which kills itself at a point of a round: what a crash or a power failure leaves.

A point is `<phase>`: all of the phase is done and none of it recorded; `train:2`: in the middle of the optimizer steps;
`collect:3`: in the middle of the searches; `publish:written`: the release is on disk, and the server does not know it;
`tidy`: a folder of the ended round is out of the way and not yet deleted.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, NoReturn

from fakes_training import children
from ramify import files
from ramify_client import AsyncAdmin, AsyncClient
from ramify_trainer.config import LoopConfig
from ramify_trainer.loop.rounds import Loop
from ramify_trainer.loop.state import folder_lock
from ramify_trainer.service import run

STEPS = {"searched": "collect", "trained": "train"}


class Doomed(Loop):
    """A loop that ends at a point."""

    point: str | None = None

    async def _do(self, name: str, phase: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        await super()._do(name, phase)
        if name == self.point:
            die()

    async def _record(self, decision: str) -> None:
        if self.point == "publish:written":
            die()
        await super()._record(decision)


def die_at_a_removal() -> None:
    flush = files.flush

    def last(path: Path) -> None:
        flush(path)
        if any(path.glob(".*.removed")):
            die()

    files.flush = last


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("killed processes do not come here")


def run_rounds(config: LoopConfig, rounds: int, point: str | None) -> int | None:
    """The exit code of a process that trains until `rounds` rounds are done, or dies at `point`."""
    child = children.Process(target=_run, args=(config.model_dump_json(), rounds, point))
    child.start()
    child.join(120)
    if child.exitcode is None:
        child.kill()
        child.join()
    return child.exitcode


def _run(config: str, rounds: int, point: str | None) -> None:
    asyncio.run(_rounds(LoopConfig.model_validate_json(config), rounds, point))


async def _rounds(config: LoopConfig, rounds: int, point: str | None) -> None:
    def tell(phase: str, done: int, total: int) -> None:
        if point == f"{STEPS.get(phase)}:{done}":
            die()

    with folder_lock(Path(config.state)):
        async with AsyncClient(config.server.url) as client, AsyncAdmin(config.server.admin_url) as admin:
            loop = Doomed(config, client, admin, tell)
            loop.point = point
            if point == "tidy":
                die_at_a_removal()
            await loop.start()
            while len(loop.state.history) < rounds:
                await loop.puller.holding(loop.round())


class Hanging:
    """`ramify-trainer run` in a process of its own, whose second optimizer step of a round never ends."""

    def __init__(self, child: ForkServerProcess, log: Connection) -> None:
        self.child, self._log = child, log

    def said(self, start: str, seconds: float) -> str:
        """The next line of its log that begins so."""
        while self._log.poll(seconds):
            line: str = self._log.recv()
            if line.startswith(start):
                return line
        raise AssertionError(f"it did not say {start!r} within {seconds:g} s")

    def told(self, number: int) -> None:
        """Send a signal."""
        assert self.child.pid is not None
        os.kill(self.child.pid, number)

    def ended(self, seconds: float) -> int | None:
        """Its exit code; None where it does not end in time."""
        self.child.join(seconds)
        return self.child.exitcode


@contextmanager
def a_hanging_service(config: LoopConfig) -> Iterator[Hanging]:
    ours, theirs = children.Pipe(duplex=False)
    child = children.Process(target=_hang, args=(config.model_dump_json(), theirs))
    child.start()
    theirs.close()
    try:
        yield Hanging(child, ours)
    finally:
        child.kill()
        child.join()
        ours.close()


class _Told(logging.Handler):
    """The log's lines, sent to whoever holds the other end."""

    def __init__(self, log: Connection) -> None:
        super().__init__()
        self._to = log

    def emit(self, record: logging.LogRecord) -> None:
        self._to.send(record.getMessage())


def _hang(config: str, log: Connection) -> None:
    logger = logging.getLogger("ramify_trainer")
    logger.setLevel(logging.INFO)
    logger.addHandler(_Told(log))

    def tell(phase: str, done: int, total: int) -> None:
        if (phase, done) == ("trained", 2):
            logger.info("hanging")
            threading.Event().wait()

    sys.exit(run(LoopConfig.model_validate_json(config), tell))
