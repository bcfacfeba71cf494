"""Runs a fleet: searches arrive, replicas die and come back, a release is activated, the database goes away."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from statistics import mean

import simpy

from ramify.fleet import Mode, Replica
from research.scale.front import Front, Policy
from research.scale.parameters import Parameters
from research.scale.replicas import Refused, Rows, Server, World
from research.scale.stations import Log, Station, Work

ANSWERED = "answered"
CALM = 5.0
"""Seconds from the end of the warm-up to an outage."""
SAMPLE = 0.25
"""Seconds between two looks at what is in service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A fleet, and all that happens to it. Times are seconds from its start."""

    replicas: int
    rate: float
    """Searches a second: a Poisson process."""
    seconds: float
    """For which searches arrive and figures are taken, after the warm-up; an activation's end ends it sooner."""
    warm_up: float = 0.0
    tail: float = 0.0
    """Time after the last arrival, for what is under way to end."""
    seed: int = 0
    policy: Policy = "least"
    sessions: int = 0
    """Sessions that searches belong to, of which number k is as frequent as 1/k (Zipf's law); 0: none."""
    activation: Mode | None = None
    """A release that is activated at the end of the warm-up."""
    outage: float = 0.0
    """Time for which the database is away, `CALM` seconds after the warm-up."""
    failures: bool = False
    """True if replicas die."""


@dataclass(slots=True)
class Tally:
    """Counts the ends of the searches that arrived after the warm-up."""

    arrived: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    """`answered`, or why not."""
    answers: int = 0
    """Answers before arrivals end, whenever their searches arrived."""
    latencies: list[float] = field(default_factory=list)
    """Seconds from arrival to answer."""
    served: list[float] = field(default_factory=list)
    """Share of the replicas in service, at the moments of samples."""
    astray: int = 0
    """Answers under an epoch that the promise of `ramify.fleet` forbids. There must be none."""


@dataclass(frozen=True, slots=True)
class Result:
    """Figures of a run."""

    scenario: Scenario
    tally: Tally
    use: dict[str, float]
    """Share of the time for which each part was busy."""
    activated: float | None
    """Seconds from the request to the commit of an activation; `None` if it was not committed, or there was none."""
    busiest: float
    """Places taken at the replica with most of them, over the mean, on average."""

    commits: list[float]
    """Seconds that each tree waited for its commit."""
    looks: list[float]
    """Seconds that each look took."""
    missed: int
    """Looks that were given up, since their turn did not come."""

    def quantile(self, share: float) -> float:
        """Return the latency below which this share of the answers is; NaN if there is none."""
        return quantile(self.tally.latencies, share)

    @property
    def refused(self) -> float:
        """Share of the searches that ended without an answer, of all that arrived."""
        ends = self.tally.ends
        return (ends.total() - ends[ANSWERED]) / max(1, self.tally.arrived)

    @property
    def lost_capacity(self) -> float:
        """Share of the replicas out of service, on average."""
        return 1 - mean(self.tally.served)


def quantile(values: list[float], share: float) -> float:
    """Return the value below which this share of them is; NaN if there is none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


class Simulation:
    """A fleet in a scenario. Everything random is drawn from streams of its seed, one for each purpose."""

    def __init__(self, of: Parameters, scenario: Scenario) -> None:
        self.of, self.scenario = of, scenario
        env = self.env = simpy.Environment()
        self.log, rows = Log(env, of), Rows(env, of, scenario.replicas)
        self.world = World(env, of, self.log, Station(env), rows, self._stream("lengths"))
        self.front = Front(env, of, scenario.policy, scenario.replicas, self._stream("checks"))
        self.servers = {i: Server(self.world, i, row) for i, row in enumerate(rows.view.replicas.values())}
        self.front.ready = dict(self.servers)
        self.tally = Tally()
        self._taken: list[tuple[float, float]] = []
        self._before: dict[str, float] = {}
        self._away = False
        self._closed = False  # no more searches arrive
        self._serial = scenario.replicas
        self._ended = 0.0  # seconds for which the processes of dead replicas were busy

    def run(self) -> Result:
        """Run it from start to end."""
        env, scenario = self.env, self.scenario
        for number in self.servers:
            env.process(self.front.watch(number, self.servers.__getitem__))
            if scenario.failures:
                env.process(self._fail(number))
        env.process(self._arrive())
        env.run(until=scenario.warm_up or 1e-9)
        self._before = self._busy()
        self.log.waits.clear()
        self.world.rows.waits.clear()
        env.process(self._sample())
        if scenario.activation is not None:
            self.world.rows.ask(scenario.activation)
        if scenario.outage:
            env.process(self._outage())
        self._run_to(scenario.warm_up + scenario.seconds)
        use = self._use(env.now - scenario.warm_up)
        env.run(until=env.now + scenario.tail + 1e-6)
        means = [each for _, each in self._taken if each]
        busiest = mean(most / each for most, each in self._taken if each) if means else 1.0
        rows = self.world.rows
        return Result(
            scenario, self.tally, use, self._activated(), busiest, self.log.waits, rows.waits, rows.missed
        )

    def _run_to(self, end: float) -> None:
        """Run to a time, or until the activation has ended."""
        env, rows = self.env, self.world.rows
        while env.now < end:
            env.run(until=min(env.now + 1.0, end))
            if self.scenario.activation is not None and rows.view.activation is None:
                break
        self._closed = True

    # -- what happens

    def _arrive(self) -> Work:
        gaps, scenario = self._stream("arrivals"), self.scenario
        sessions = self._sessions()
        while scenario.rate:
            yield self.env.timeout(gaps.expovariate(scenario.rate))
            if self._closed:
                return
            self.env.process(self._search(next(sessions)))

    def _sessions(self) -> Iterator[int | None]:
        number, draws = self.scenario.sessions, self._stream("sessions")
        weights = list(accumulate(1 / k for k in range(1, number + 1)))
        while True:
            yield draws.choices(range(number), cum_weights=weights)[0] if number else None

    def _search(self, session: int | None) -> Work:
        """One search from its arrival to its one end."""
        began = self.env.now
        counts = began >= self.scenario.warm_up
        self.tally.arrived += counts
        try:
            epoch = yield from self._sent(session)
        except Refused as refused:
            self.tally.ends[str(refused)] += counts
            return
        self.tally.ends[ANSWERED] += counts
        self.tally.answers += self.env.now >= self.scenario.warm_up and not self._closed
        self.tally.astray += not self.world.rows.allows(epoch)
        if counts:
            self.tally.latencies.append(self.env.now - began)

    def _sent(self, session: int | None) -> Work:
        yield from self.front.station.serve(self.of.route_cpu / self.of.speed)
        if self._away:
            raise Refused("log away")
        server = self.front.send(session)
        if server is None:
            raise Refused("no replica ready")
        server.connections += 1
        try:
            return (yield from server.search(session))
        finally:
            server.connections -= 1

    def _fail(self, number: int) -> Work:
        """Let a replica die, and another begin in its place, for ever."""
        lives, env = self._stream(f"lives {number}"), self.env
        while True:
            yield env.timeout(lives.expovariate(1 / self.of.lifetime))
            self.servers[number].die()
            self._ended += self.servers[number].process.busy
            self.front.ready.pop(number, None)
            loaded = self.world.rows.view.committed.number
            yield env.timeout(self.of.start)
            self._serial += 1
            row = Replica(f"{self._serial:012x}", "", "", env.now, self.of.lease, loaded=loaded)
            self.servers[number] = Server(self.world, number, row)

    def _outage(self) -> Work:
        """Take the database away: nobody gets its locks meanwhile, and servers refuse new searches."""
        yield self.env.timeout(CALM)
        self._away = True
        with self.log.lock.places.request() as log, self.world.rows.lock.places.request() as rows:
            yield log & rows
            yield self.env.timeout(self.scenario.outage)
        self._away = False

    # -- what is noted

    def _sample(self) -> Work:
        while True:
            servers = list(self.servers.values())
            self.tally.served.append(sum(server.in_service for server in servers) / len(servers))
            taken = [len(server.running) for server in servers]
            self._taken.append((max(taken), mean(taken)))
            yield self.env.timeout(SAMPLE)

    def _busy(self) -> dict[str, float]:
        rows, number = self.world.rows, len(self.servers)
        return {
            "front door": self.front.station.busy,
            "log": self.log.lock.busy,
            "epoch": rows.lock.busy,
            "store": self.world.bucket.busy,
            "process": (self._ended + sum(server.process.busy for server in self.servers.values())) / number,
        }

    def _use(self, seconds: float) -> dict[str, float]:
        use = {part: (busy - self._before[part]) / seconds for part, busy in self._busy().items()}
        places = mean(each for _, each in self._taken) / self.of.slots if self._taken else 0.0
        return {"places": places, **use}

    def _activated(self) -> float | None:
        newest = self.world.rows.view.newest
        if self.scenario.activation is None or newest.state != "committed" or newest.ended_at is None:
            return None
        return newest.ended_at - newest.created_at

    def _stream(self, purpose: str) -> random.Random:
        return random.Random(f"{self.scenario.seed} {purpose}")


def run(of: Parameters, scenario: Scenario) -> Result:
    """Return what comes of a scenario."""
    return Simulation(of, scenario).run()
