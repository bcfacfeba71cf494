"""Places where work waits for its turn: a queue before one or more servers, and PostgreSQL's log with group commit."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import simpy

from research.scale.parameters import Parameters

Work = Generator[Any, Any, Any]
"""A part of a simpy process: yields events, returns what it came to."""


class Station:
    """Serves so many at once, first come, first served, and counts the time for which it was busy."""

    def __init__(self, env: simpy.Environment, places: int = 1) -> None:
        self.env = env
        self.places = simpy.Resource(env, places)
        self.busy = 0.0
        """Seconds of service given, of all places together."""

    def serve(self, seconds: float) -> Work:
        with self.places.request() as turn:
            yield turn
            yield self.take(seconds)

    def take(self, seconds: float) -> simpy.Event:
        """Be busy for so long, for whoever has a place."""
        self.busy += seconds
        return self.env.timeout(seconds)


@dataclass(frozen=True, slots=True)
class _Job:
    """A write that waits for its commit."""

    seconds: float
    """Its own part of the transaction."""
    appends: bool
    """True for a tree, false for a write that reads and writes no tree."""
    since: float
    done: simpy.Event


class Log:
    """PostgreSQL's log: one write transaction at a time, whichever replica writes."""

    def __init__(self, env: simpy.Environment, parameters: Parameters) -> None:
        self.env = env
        self.lock = Station(env)
        self.waits: list[float] = []
        """Seconds that each tree waited for its commit."""
        self._of = parameters

    def row(self) -> float:
        """Return what a tree adds to the transaction that appends it."""
        of = self._of
        body = 0.0 if of.bodies_in_store else of.body_cpu / of.speed + of.body_bytes / of.disk_bytes
        return of.row_cpu / of.speed + body

    def transaction(self, rows: float, appends: bool) -> Work:
        """Commit. rows: seconds of what is written. appends: trees are among them."""
        before, locked = self._of.transaction(appends=appends)
        yield self.env.timeout(before)
        yield from self.lock.serve(rows + locked)


class Writer:
    """One replica's writes: those that come while one transaction commits share the next (`ramify.treelog.writer`)."""

    def __init__(self, log: Log, batch: int) -> None:
        self._log, self._batch = log, batch
        self._waiting = deque[_Job]()
        self._busy = False
        self.wrote = 0.0
        """When it last committed."""

    def tree(self) -> simpy.Event:
        """Append a tree; the event is its commit."""
        return self._submit(self._log.row(), appends=True)

    def touch(self) -> simpy.Event:
        """Commit a write without a tree, such as a probe."""
        return self._submit(0.0, appends=False)

    def end(self) -> None:
        """Drop what waits: the replica has died."""
        self._waiting.clear()

    def _submit(self, seconds: float, *, appends: bool) -> simpy.Event:
        env = self._log.env
        job = _Job(seconds, appends, env.now, env.event())
        self._waiting.append(job)
        if not self._busy:
            self._busy = True
            env.process(self._run())
        return job.done

    def _run(self) -> Work:
        log = self._log
        while True:
            yield log.env.timeout(0)  # those whose turn comes in this moment are in the same batch
            if not self._waiting:
                break
            batch = [self._waiting.popleft() for _ in range(min(self._batch, len(self._waiting)))]
            rows = sum(job.seconds for job in batch)
            yield from log.transaction(rows, any(job.appends for job in batch))
            self.wrote = log.env.now
            log.waits += [log.env.now - job.since for job in batch if job.appends]
            for job in batch:
                job.done.succeed()
        self._busy = False
