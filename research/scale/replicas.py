"""One server of the fleet: admission, its process, its way into the log, and its looks at the fleet.

What it does next in the fleet is decided by `ramify.fleet.decisions`, on the rows that `Rows` holds in memory. The few
lines of `ramify.service` that carry a decision out (hold admission, drain, lapse) are written again here, on simulated
time.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import simpy

from ramify.fleet import Epoch, Mode, Replica, Step, View
from ramify.fleet.decisions import QUICK, holds, turn, until_next_look
from research.scale.parameters import Parameters
from research.scale.stations import Log, Station, Work, Writer

DRAINED, DIED = "drained", "died"
"""Causes of an interrupt: the search goes on to its log with its best so far, or is lost."""


class Refused(Exception):
    """A search that is not answered; the message says why, in a word or two."""


def an_epoch(number: int, mode: Mode, now: float, of: Parameters) -> Epoch:
    """Return an activation that was just asked for."""
    return Epoch(
        *(number, f"v{number:06d}", f"{number:064x}", "preparing", mode, "activate", "", ""),
        share=of.least_share,
        grace=of.grace,
        created_at=now,
        deadline=now + of.activation_seconds,
    )


class Rows:
    """The fleet's rows in PostgreSQL: one look at a time, whichever replica looks."""

    def __init__(self, env: simpy.Environment, of: Parameters, replicas: int) -> None:
        self.env, self.of = env, of
        self.lock = Station(env)
        self.waits: list[float] = []
        """Seconds that each look took, the wait for its turn included."""
        self.missed = 0
        """Looks that were given up."""
        first = replace(an_epoch(1, "rolling", 0.0, of), state="committed", ended_at=0.0)
        rows = [
            Replica(f"{i:012x}", "", "", 0.0, of.lease, loaded=1, prepared=1, serving=1)
            for i in range(replicas)
        ]
        self.view = View(0.0, {row.id: row for row in rows}, first, first)

    def look(self, mine: Replica) -> Work:
        """Take a replica's look. Returns its next step or `None`; raises `TimeoutError` if its turn does not come."""
        began = self.env.now
        before, locked = self.of.look(len(self.view.replicas))
        yield self.env.timeout(before)
        with self.lock.places.request() as request:
            if not request.triggered:
                yield request | self.env.timeout(self.of.lease / 2)
            if not request.triggered:
                self.missed += 1
                raise TimeoutError
            yield self.lock.take(locked)
            self.view, step = turn(replace(self.view, now=self.env.now), mine)
            self.waits.append(self.env.now - began)
            return step

    def ask(self, mode: Mode) -> None:
        """Begin an activation."""
        number = self.view.newest.number + 1
        self.view = replace(self.view, newest=an_epoch(number, mode, self.env.now, self.of))

    def allows(self, epoch: int) -> bool:
        """Tell whether an answer may be made under an epoch now, by the promise of `ramify.fleet`."""
        under_way = self.view.activation
        rolls = under_way is not None and under_way.mode == "rolling" and under_way.state != "preparing"
        return epoch == self.view.committed.number or (rolls and epoch == self.view.newest.number)


@dataclass(frozen=True, slots=True)
class World:
    """All that a replica shares with the others."""

    env: simpy.Environment
    of: Parameters
    log: Log
    bucket: Station
    rows: Rows
    draws: random.Random
    """Lengths of searches."""


class Server:
    """One replica from its start to its end."""

    def __init__(self, world: World, number: int, row: Replica) -> None:
        self.world, self.number, self.mine = world, number, row
        env, of = world.env, world.of
        self.writer = Writer(world.log, int(of.batch))
        self.process, self.encoder = Station(env), Station(env)
        self.uploads = Station(env, int(of.uploads))
        self.running: dict[simpy.Event, None] = {}
        """Searches that hold a place, and grants that their searches have not yet heard of."""
        self.growing: dict[simpy.Process, None] = {}
        """Those of them that are in the engines."""
        self.waiting: dict[simpy.Event, None] = {}
        self.connections = 0
        """Searches that the front door has sent here and that have not ended."""
        self.warm: set[int] = set()
        """Sessions whose prefix it has in its cache."""
        self.answers_until = env.now + of.lease if row.serving else 0.0
        self.admits, self.paused = row.serving > 0, False
        self.lapses = 0
        self.due = 0.0
        """When its next look is to begin."""
        self.dead = False
        self._emptied = env.event()
        self._wake = env.event()
        self._work: simpy.Process | None = None
        self._tasks = [env.process(self._look_forever()), env.process(self._keep_checkpoints())]

    @property
    def in_service(self) -> bool:
        """True if `/readyz` says so, but for the log."""
        return self.admits and not self.paused and self.world.env.now <= self.answers_until

    # -- searches

    def search(self, session: int | None) -> Work:
        """Run a search from admission to its answer. Returns the epoch under which it is answered; raises `Refused`."""
        try:
            yield from self._enter()
            return (yield from self._held(session))
        except simpy.Interrupt as interrupt:
            raise Refused(str(interrupt.cause)) from None

    def _enter(self) -> Work:
        env, of = self.world.env, self.world.of
        if not self.admits or env.now > self.answers_until:
            raise Refused("not ready")
        if self.paused or self.waiting or len(self.running) >= of.slots:
            if len(self.waiting) >= of.queue:
                raise Refused("full")
            granted = env.event()
            self.waiting[granted] = None
            yield granted | env.timeout(of.queue_seconds)
            if not granted.triggered:
                del self.waiting[granted]
                raise Refused("waited too long")
            why = DIED if self.dead else granted.value
            if why is not None:
                raise Refused(why)
            del self.running[granted]

    def _held(self, session: int | None) -> Work:
        """Run a search that holds a place until it is logged."""
        me, lapses = self.world.env.active_process, self.lapses
        self.running[me] = None
        try:
            yield from self._grow(me, session)
            yield from self.process.serve(
                self.world.of.tokens * self.world.of.token_cpu / self.world.of.speed
            )
            yield from self._log()
        finally:
            del self.running[me]
            self._let_in()
        if lapses != self.lapses or self.world.env.now > self.answers_until:
            raise Refused("lapsed")
        return self.mine.loaded

    def _grow(self, me: simpy.Process, session: int | None) -> Work:
        """Be in the engines; a checkpoint is written beside it now and then."""
        env, left, every = self.world.env, self._seconds(session), self.world.of.checkpoint_seconds
        self.growing[me] = None
        try:
            while left > every:
                yield env.timeout(every)
                left -= every
                self.writer.tree()
            yield env.timeout(left)
        except simpy.Interrupt as interrupt:
            if interrupt.cause != DRAINED:
                raise
        finally:
            del self.growing[me]

    def _seconds(self, session: int | None) -> float:
        of = self.world.of
        mean, spread = of.search_seconds, of.search_spread
        drawn = self.world.draws.gammavariate(spread**-2, mean * spread**2) if spread else mean
        if session is None:
            return drawn
        saved = of.prefix_saving if session in self.warm else 0.0
        self.warm.add(session)
        return drawn * (1 - saved)

    def _log(self) -> Work:
        of = self.world.of
        yield from self.encoder.serve(of.encode_cpu / of.speed)
        if of.bodies_in_store:
            with self.uploads.places.request() as turn_:
                yield turn_
                yield from self.world.bucket.serve(1 / of.bucket_puts)
                yield self.uploads.take(of.put + of.place_cpu / of.speed)
        yield self.writer.tree()

    def _let_in(self) -> None:
        while self.waiting and not self.paused and len(self.running) < self.world.of.slots:
            granted = next(iter(self.waiting))
            del self.waiting[granted]
            granted.succeed(None)
            self.running[granted] = None
        if not self.running and not self._emptied.triggered:
            self._emptied.succeed()

    def _send_away(self, why: str) -> None:
        for granted in self.waiting:
            granted.succeed(why)
        self.waiting.clear()

    def die(self) -> None:
        """End at once, and all that runs and waits here with it."""
        self.dead, self.admits = True, False
        self._send_away(DIED)
        self.writer.end()
        for task in (*self._tasks, self._work, *self.running):
            if isinstance(task, simpy.Process) and task.is_alive:
                task.interrupt(DIED)

    def _keep_checkpoints(self) -> Work:
        """Renew this server's checkpoints, and look for those of dead ones."""
        env, every = self.world.env, self.world.of.checkpoint_seconds
        try:
            yield env.timeout(every * self.number / len(self.world.rows.view.replicas))
            while True:
                yield self.writer.touch()
                yield self.writer.touch()
                yield env.timeout(every)
        except simpy.Interrupt:
            return

    # -- the fleet

    def _look_forever(self) -> Work:
        env = self.world.env
        try:
            yield env.timeout(0.01 * self.number)
            while True:
                rest = yield from self._look()
                self._wake = env.event()
                if self._work is None or self._work.is_alive:
                    yield self._wake | env.timeout(rest)
        except simpy.Interrupt:
            return

    def _look(self) -> Work:
        """Tell the fleet of this replica and learn what is next; return the seconds until the next look."""
        world = self.world
        self._collect()
        began = world.env.now
        try:
            step = yield from world.rows.look(self.mine)
        except TimeoutError:
            self.due = -math.inf
            return min(QUICK, world.of.heartbeat)
        view = world.rows.view
        self.mine = view.replicas[self.mine.id]
        self._apply(view, began)
        if step is not None:
            self._work = world.env.process(self._take(step))
        rest = until_next_look(view, self.mine, world.of.heartbeat)
        self.due = world.env.now + rest
        return rest

    def _collect(self) -> None:
        if self.world.env.now > self.answers_until and self.mine.serving:
            self.lapses += 1
            self.mine = replace(self.mine, serving=0)
        if self._work is not None and not self._work.is_alive:
            self.mine, self._work = self._work.value(self.mine), None

    def _apply(self, view: View, began: float) -> None:
        self.answers_until = began + self.mine.lease
        self.paused = holds(view, self.mine)
        self.admits = self.paused or (self.mine.serving > 0 and not self.mine.evicted)
        if not self.admits:
            self._send_away("not ready")
        self._let_in()

    def _take(self, step: Step) -> Work:
        """Take a step; return what it makes of the row."""
        env, of, number = self.world.env, self.world.of, step.epoch.number
        try:
            if step.work == "preparing":
                yield env.timeout(of.prepare)
                return self._done(lambda row: replace(row, work=None, prepared=number))
            yield from self._quiesce(step.epoch.grace)
            if step.work == "closing":
                return self._done(lambda row: replace(row, work=None, serving=0))
            yield env.timeout(of.load)
            return self._done(lambda row: replace(row, work=None, loaded=number, serving=0))
        except simpy.Interrupt:
            return self._done(lambda row: row)

    def _done(self, made: Callable[[Replica], Replica]) -> Callable[[Replica], Replica]:
        if not self._wake.triggered:
            self._wake.succeed()
        return made

    def _quiesce(self, grace: float) -> Work:
        """Let running searches go on for so long, then let them end with their best so far, and be logged."""
        if not self.running:
            return
        self._emptied = self.world.env.event()
        yield self._emptied | self.world.env.timeout(grace)
        for search in list(self.growing):
            search.interrupt(DRAINED)
        if not self._emptied.triggered:
            yield self._emptied
