"""Every number that the model takes, with its unit, its source and the range over which it is varied."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from ramify.objects import ObjectOptions
from ramify.settings import AdmissionSettings, CheckpointSettings, FleetSettings, SpoolSettings

MEASURED = Path(__file__).with_name("measured.json")
"""Figures that `python -m research.scale measure` wrote, with the machine that it ran on."""
MEASURES = "`measure`"
BENCH = "docs/evaluation.md: `ramify bench`, 64 searches at once"
PROXY = "deploy/haproxy.cfg"


def measured(unit: str, meaning: str) -> Any:
    """Declare a parameter that `measure` measures: it has no default."""
    return field(metadata={"unit": unit, "meaning": meaning, "source": MEASURES})


def setting(default: float, name: str, unit: str = "") -> Any:
    """Declare a parameter that is the default of a setting."""
    return field(default=default, metadata={"unit": unit, "meaning": f"`{name}`", "source": "setting"})


def recorded(default: float, unit: str, meaning: str, source: str) -> Any:
    """Declare a parameter that a page or a file of this repository says."""
    return field(default=default, metadata={"unit": unit, "meaning": meaning, "source": source})


def assumed(default: float, unit: str, meaning: str, low: float, high: float) -> Any:
    """Declare a parameter that nothing here measures; the report varies it from `low` to `high`."""
    about = {"unit": unit, "meaning": meaning, "source": "assumed", "low": low, "high": high}
    return field(default=default, metadata=about)


_ADMISSION, _FLEET, _OBJECTS, _SPOOL = AdmissionSettings(), FleetSettings(), ObjectOptions(), SpoolSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """One fleet, its database, store and front door, and the searches that it gets. Times are in seconds."""

    # PostgreSQL, as the log uses it: one write transaction at a time, whoever writes
    transaction_cpu: float = measured(
        "s", "a write transaction: its fixed part, server and database, shared out over its round trips"
    )
    append_cpu: float = measured("s", "what trees in it add, however many")
    row_cpu: float = measured("s", "each tree's row, its body elsewhere")
    body_cpu: float = measured("s", "the body in the row, besides")
    transaction_turns: float = measured("", "round trips of a write transaction that hold its lock")
    append_turns: float = measured("", "what trees in it add")
    begin_turns: float = measured(
        "", "round trips of any transaction before its lock: the pool's ping, and BEGIN"
    )
    read_turns: float = measured("", "what trees add to those")
    # PostgreSQL, as the fleet uses it: one look at a time, whoever looks
    look_cpu: float = measured("s", "a look at the fleet: its fixed part")
    look_row_cpu: float = measured("s", "each replica that a look reads, besides")
    look_turns: float = measured("", "round trips of a look that hold its lock")
    # A replica
    encode_cpu: float = measured("s", "a tree to JSON, sha256 and zstd, in one thread")
    place_cpu: float = measured("s", "an object's PUT, in the replica")
    body_bytes: float = measured("bytes", "a tree's body, compressed")
    # The front door
    route_cpu: float = measured("s", "a request through HAProxy with deploy/haproxy.cfg")

    tokens: float = assumed(300, "", "generated tokens a search", 100, 1000)
    token_cpu: float = recorded(0.26 / 2991, "s", "the replica's process, a generated token", BENCH)
    search_seconds: float = assumed(2.0, "s", "a search in the engines, mean", 0.5, 20)
    search_spread: float = assumed(0.5, "", "its standard deviation over its mean", 0, 1)

    slots: float = setting(_ADMISSION.searches, "admission.searches")
    queue: float = setting(_ADMISSION.queue, "admission.queue")
    queue_seconds: float = setting(_ADMISSION.queue_seconds, "admission.queue_seconds", "s")
    uploads: float = setting(_OBJECTS.parallel, "objects.parallel")
    checkpoint_seconds: float = setting(CheckpointSettings().seconds, "checkpoints.seconds", "s")
    probe_deadline: float = setting(_SPOOL.deadline_seconds, "spool.deadline_seconds", "s")
    heartbeat: float = setting(_FLEET.heartbeat_seconds, "fleet.heartbeat_seconds", "s")
    lease: float = setting(_FLEET.lease_seconds, "fleet.lease_seconds", "s")
    least_share: float = setting(_FLEET.least_share, "fleet.least_share")
    activation_seconds: float = setting(_FLEET.activation_seconds, "fleet.activation_seconds", "s")
    batch: float = recorded(256, "", "writes of one transaction, at most", "`TreeLog.open`")
    health_seconds: float = recorded(1.0, "s", "between two health checks of a replica", PROXY)

    speed: float = assumed(1, "", "processors, as a multiple of the measured one", 1, 4)
    flush: float = assumed(0.001, "s", "a commit's flush of PostgreSQL's log to its disk", 0.0002, 0.008)
    turn: float = assumed(0.0005, "s", "a round trip between replica and database", 0.0001, 0.002)
    disk_bytes: float = assumed(250e6, "bytes/s", "PostgreSQL's log on its disk", 50e6, 1e9)
    put: float = assumed(0.03, "s", "an object's PUT", 0.01, 0.1)
    bucket_puts: float = assumed(
        3500, "/s", "PUTs that the bucket takes before it splits its prefix", 1000, 20000
    )
    prepare: float = assumed(20, "s", "to fetch and verify a release", 5, 120)
    load: float = assumed(10, "s", "to load a release and ask the canary", 1, 60)
    grace: float = assumed(10, "s", "that searches may go on before a replica loads", 0, 60)
    start: float = assumed(90, "s", "from a replica's death to its engines being up", 30, 600)
    lifetime: float = assumed(24 * 3600, "s", "a replica lives, mean", 3600, 7 * 24 * 3600)
    prefix_saving: float = assumed(0.2, "", "share of a search that a cached prefix saves", 0, 0.5)

    bodies_in_store: bool = True
    """`objects.trees`: bodies are objects, not in rows."""

    def transaction(self, *, appends: bool) -> tuple[float, float]:
        """Return the seconds of a write transaction before it needs its lock, and those for which it holds it, without
        rows. appends: trees are in it."""
        cpu = self.transaction_cpu + appends * self.append_cpu
        free = self.begin_turns + appends * self.read_turns
        return self._parts(cpu, free, self.transaction_turns + appends * self.append_turns)

    def look(self, replicas: int) -> tuple[float, float]:
        """Return the same of a look at the fleet."""
        before, locked = self._parts(self.look_cpu, self.begin_turns, self.look_turns)
        return before, locked + replicas * self.look_row_cpu / self.speed

    def _parts(self, cpu: float, free: float, locked: float) -> tuple[float, float]:
        """Return the seconds of a transaction's round trips without its lock, and of those under it, with the flush."""
        share = free / (free + locked) if free else 0.0
        before = share * cpu / self.speed + free * self.turn
        return before, (1 - share) * cpu / self.speed + locked * self.turn + self.flush


def spec(name: str) -> Field[Any]:
    """Return what is declared of a parameter."""
    return next(one for one in fields(Parameters) if one.name == name)


def assumptions() -> Mapping[str, tuple[float, float]]:
    """Return the range of every assumed parameter, by name."""
    return {
        one.name: (one.metadata["low"], one.metadata["high"])
        for one in fields(Parameters)
        if one.metadata.get("source") == "assumed"
    }


def defaults(path: Path = MEASURED) -> Parameters:
    """Return the parameters as they were measured, recorded, set and assumed."""
    known = {one.name for one in fields(Parameters) if one.metadata.get("source") == MEASURES}
    figures = json.loads(path.read_text())["figures"]
    return Parameters(**{name: figures[name] for name in known})
