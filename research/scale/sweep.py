"""The runs that the report is made of: each function returns the rows of one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ramify.fleet import Mode
from research.scale.front import Policy
from research.scale.parameters import Parameters, assumptions
from research.scale.simulation import Result, Scenario, quantile, run

Row = dict[str, float | str | None]
REPLICAS = (1, 4, 16, 64, 256)
RATES = (10.0, 100.0, 1000.0, 10_000.0)
MODES: tuple[Mode, ...] = ("rolling", "barrier")
POLICIES: tuple[Policy, ...] = ("least", "sticky", "bounded")
MOST = 4000
"""Searches of one run, about."""


def _run(of: Parameters, replicas: int, rate: float, **scenario: object) -> Result:
    told = {"seconds": max(3.0, min(30.0, MOST / max(rate, 1))), "warm_up": 2 * of.search_seconds, **scenario}
    return run(of, Scenario(replicas=replicas, rate=rate, **told))  # type: ignore[arg-type]


def loads(of: Parameters) -> list[Row]:
    """Every size of a fleet under every load that is not far beyond what its replicas take."""
    most = 2 * of.slots / of.search_seconds
    return [_load(of, size, rate) for size in REPLICAS for rate in RATES if rate <= most * size]


def _load(of: Parameters, replicas: int, rate: float) -> Row:
    seconds = max(6.0, min(30.0, MOST / rate))
    result = _run(of, replicas, rate, warm_up=12.0, seconds=seconds)
    limit = max(result.use, key=result.use.__getitem__)
    return {
        "replicas": replicas,
        "searches/s": rate,
        "answered/s": result.tally.answers / seconds,
        "refused %": 100 * result.refused,
        "p50 s": result.quantile(0.5),
        "p99 s": result.quantile(0.99),
        "commit p99 s": quantile(result.commits, 0.99),
        "fullest": limit,
        **{f"{part} %": 100 * use for part, use in result.use.items()},
    }


LOGS: dict[str, Callable[[Parameters], Parameters]] = {
    "bodies in the store": lambda of: of,
    "bodies in rows": lambda of: replace(of, bodies_in_store=False),
    "1,000 tokens, bodies in rows": lambda of: replace(
        of,
        bodies_in_store=False,
        body_bytes=of.body_bytes * 1000 / of.tokens,
        body_cpu=of.body_cpu * 1000 / of.tokens,
    ),
    "processors four times as fast": lambda of: replace(of, speed=4.0),
}


def logs(of: Parameters) -> list[Row]:
    """The wait for a commit, by the size of the fleet, at two searches a second and replica."""
    return [
        {
            "log": name,
            "replicas": replicas,
            "use %": 100 * result.use["log"],
            "commit p50 s": quantile(result.commits, 0.5),
            "commit p99 s": quantile(result.commits, 0.99),
        }
        for name, change in LOGS.items()
        for replicas in REPLICAS
        for result in [_run(change(of), replicas, 2.0 * replicas, seconds=8.0)]
    ]


def idle(of: Parameters) -> list[Row]:
    """The load of the database while nobody searches."""
    return [
        {
            "replicas": replicas,
            "heartbeat s": heartbeat,
            "epoch %": 100 * result.use["epoch"],
            "log %": 100 * result.use["log"],
            "look p99 s": quantile(result.looks, 0.99),
            "looks given up": result.missed,
            "out of service %": 100 * result.lost_capacity,
        }
        for replicas in (16, 64, 128, 256)
        for heartbeat in (0.5, 3.0)
        for result in [_run(replace(of, heartbeat=heartbeat), replicas, 0.0, seconds=30.0, warm_up=10.0)]
    ]


def activations(of: Parameters) -> list[Row]:
    """The time and cost of an activation, at one search for ten seconds and replica."""
    return [
        {
            "mode": mode,
            "replicas": replicas,
            "seconds": result.activated,
            "out of service %": 100 * result.lost_capacity,
            "refused %": 100 * result.refused,
            "p99 s": result.quantile(0.99),
            "astray": result.tally.astray,
        }
        for mode in MODES
        for replicas in REPLICAS
        for result in [_run(of, replicas, 0.1 * replicas, activation=mode, seconds=100.0)]
    ]


def failures(of: Parameters) -> list[Row]:
    """The cost of replicas that die, to a fleet of 16, in five minutes."""
    return [
        {
            "mean life h": lifetime / 3600,
            "out of service %": 100 * result.lost_capacity,
            "expected %": 100 * of.start / (of.start + lifetime),
            "searches lost %": 100 * result.tally.ends["died"] / max(1, result.tally.ends.total()),
        }
        for lifetime in (600.0, 3600.0)
        for result in [_run(replace(of, lifetime=lifetime), 16, 5.0, failures=True, seconds=300.0)]
    ]


def outages(of: Parameters) -> list[Row]:
    """The cost of a database that is away, to a fleet of 16, within a minute, with searches of four seconds."""
    return [
        {
            "away s": away,
            "lease s": lease,
            "not answered %": 100 * result.refused,
            "lapsed": result.tally.ends["lapsed"],
            "out of service %": 100 * result.lost_capacity,
            "p99 s": result.quantile(0.99),
        }
        for lease in (10.0, 60.0)
        for away in (2.0, 8.0, 30.0)
        for result in [
            _run(replace(of, lease=lease, search_seconds=4.0), 16, 10.0, outage=away, seconds=60.0)
        ]
    ]


def hot(of: Parameters) -> list[Row]:
    """Sessions of Zipf's law at 16 replicas, with a log that is no limit, by the front door's policy."""
    fast = replace(of, speed=4.0)
    return [
        {
            "policy": policy,
            "searches/s": rate,
            "busiest / mean": result.busiest,
            "refused %": 100 * result.refused,
            "p50 s": result.quantile(0.5),
            "p99 s": result.quantile(0.99),
        }
        for policy in POLICIES
        for rate in (100.0, 200.0, 350.0)
        for result in [_run(fast, 16, rate, policy=policy, sessions=1000)]
    ]


def sensitivity(of: Parameters) -> list[Row]:
    """Every assumption at both ends of its range: 8 replicas, 10 searches a second, a rolling activation."""
    changes: list[dict[str, Any]] = [{}]
    changes += [{name: value} for name, ends in assumptions().items() for value in ends]
    return [
        {
            "assumption": next(iter(change), "as assumed"),
            "value": next(iter(change.values()), None),
            "log %": 100 * result.use["log"],
            "epoch %": 100 * result.use["epoch"],
            "commit p99 s": quantile(result.commits, 0.99),
            "p99 s": result.quantile(0.99),
            "activation s": result.activated,
        }
        for change in changes
        for result in [_run(replace(of, **change), 8, 10.0, activation="rolling", seconds=300.0)]
    ]


def capacities(of: Parameters) -> list[Row]:
    """Searches a second that each part could take alone, by arithmetic."""
    _, transaction = of.transaction(appends=True)
    row = of.row_cpu / of.speed
    body = row + of.body_cpu / of.speed + of.body_bytes / of.disk_bytes
    return [
        {"part": "log, each tree its own transaction", "searches/s": 1 / (transaction + row)},
        {"part": "epoch, looks of 16 replicas", "searches/s": 1 / of.look(16)[1]},
        {
            "part": "log, full batches, bodies in the store",
            "searches/s": of.batch / (transaction + of.batch * row),
        },
        {
            "part": "log, full batches, bodies in rows",
            "searches/s": of.batch / (transaction + of.batch * body),
        },
        {"part": "front door, one thread", "searches/s": of.speed / of.route_cpu},
        {"part": "bucket, one prefix", "searches/s": of.bucket_puts},
        {"part": "one replica: its process", "searches/s": of.speed / (of.tokens * of.token_cpu)},
        {"part": "one replica: its places", "searches/s": of.slots / of.search_seconds},
        {"part": "one replica: encoding", "searches/s": of.speed / of.encode_cpu},
        {"part": "one replica: uploads", "searches/s": of.uploads / of.put},
    ]


TABLES: dict[str, Callable[[Parameters], list[Row]]] = {
    "Capacities": capacities,
    "Loads": loads,
    "The log": logs,
    "The epoch, idle": idle,
    "Activations": activations,
    "Failures": failures,
    "Outages of the database": outages,
    "Hot prompts": hot,
    "Sensitivity": sensitivity,
}
