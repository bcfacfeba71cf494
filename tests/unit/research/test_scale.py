"""The model of a fleet past one machine: against queueing theory, against its own books, and the fleet's promise."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from ramify.fleet.decisions import LOOKS
from research.scale import report
from research.scale.check import CALIBRATING, Appended, calibrated, simulated
from research.scale.front import Policy
from research.scale.parameters import MEASURED, MEASURES, Parameters, assumptions, defaults
from research.scale.simulation import ANSWERED, Result, Scenario, quantile, run

REAL = defaults()
QUICK = replace(REAL, search_seconds=0.5, prepare=2.0, load=1.0, grace=1.0, start=4.0)
FREE = {one.name: 0.0 for one in fields(Parameters) if one.metadata.get("source") == MEASURES}
"""Parameters of a fleet in which nothing but the engines takes time."""


def fleet(of: Parameters = QUICK, **scenario: object) -> Result:
    told = {"replicas": 3, "rate": 12.0, "seconds": 12.0, **scenario}
    return run(of, Scenario(**told))  # type: ignore[arg-type]


def erlang_c(servers: int, load: float) -> float:
    """Return the probability that an arrival waits in M/M/c. Erlang's second formula, by the recursion of his first."""
    blocked = 1.0
    for k in range(1, servers + 1):
        blocked = load * blocked / (k + load * blocked)
    return blocked / (1 - load / servers * (1 - blocked))


@pytest.mark.parametrize(("servers", "load"), [(1, 0.6), (4, 3.0)])
def test_one_replica_without_costs_is_erlangs_queue(servers: int, load: float) -> None:
    of = replace(
        REAL,
        **FREE,
        turn=0.0,
        flush=0.0,
        put=0.0,
        token_cpu=0.0,
        bucket_puts=1e12,
        checkpoint_seconds=1e9,
        search_seconds=1.0,
        search_spread=1.0,
        slots=servers,
        queue=1e9,
        queue_seconds=1e9,
        heartbeat=60.0,
        lease=1e9,
        health_seconds=1e9,
    )
    result = fleet(of, replicas=1, rate=load, seconds=4_000.0 / load, warm_up=50.0)
    expected = 1.0 + erlang_c(servers, load) / (servers - load)
    assert sum(result.tally.latencies) / len(result.tally.latencies) == pytest.approx(expected, rel=0.15)
    assert result.use["places"] == pytest.approx(load / servers, rel=0.05)


@pytest.mark.parametrize("policy", ["least", "sticky", "bounded"])
@pytest.mark.parametrize("activation", [None, "rolling", "barrier"])
def test_every_search_ends_exactly_once(policy: Policy, activation: str | None) -> None:
    of = replace(QUICK, lifetime=10.0, slots=4, queue=4, queue_seconds=1.0)
    result = fleet(
        of,
        policy=policy,
        sessions=20,
        activation=activation,
        failures=True,
        outage=1.0,
        tail=20.0,
        rate=20.0,
        seconds=10.0,
    )
    assert result.tally.ends.total() == result.tally.arrived > 150
    assert len(result.tally.latencies) == result.tally.ends[ANSWERED]
    assert result.tally.ends["died"] > 0


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("mode", ["rolling", "barrier"])
def test_no_answer_is_of_a_replica_that_is_not_at_the_epoch(mode: str, seed: int) -> None:
    of = replace(QUICK, lifetime=8.0, lease=3.0)
    result = fleet(of, activation=mode, failures=True, outage=4.0 * (seed % 2), seed=seed, seconds=16.0)
    assert result.tally.ends[ANSWERED] > 0
    assert result.tally.astray == 0


@pytest.mark.parametrize("mode", ["rolling", "barrier"])
def test_an_activation_is_committed_after_its_slowest_replica(mode: str) -> None:
    result = fleet(activation=mode)
    least = QUICK.prepare + QUICK.load
    assert result.activated is not None
    assert least < result.activated < least * 3 + 3 * QUICK.grace
    assert (result.refused > 0) == (mode == "barrier")  # the front door finds no replica ready


def test_an_answer_past_a_lapsed_lease_is_not_given() -> None:
    long = replace(QUICK, search_seconds=8.0, search_spread=0.0, lease=3.0, checkpoint_seconds=1e9)
    result = fleet(long, outage=6.0, seconds=10.0, tail=60.0)
    assert result.tally.ends[ANSWERED] == 0
    assert result.tally.ends["lapsed"] > 0


def test_the_same_seed_gives_the_same_run() -> None:
    one, same, other = (fleet(seed=seed, failures=True) for seed in (1, 1, 2))
    assert one.tally.latencies == same.tally.latencies != other.tally.latencies


def test_more_load_more_replicas_and_dearer_turns_make_the_log_busier() -> None:
    by_load = [fleet(rate=rate).use["log"] for rate in (2.0, 8.0, 24.0)]
    by_turn = [fleet(replace(QUICK, turn=turn)).use["log"] for turn in (0.0001, 0.0005, 0.002)]
    commits = [quantile(fleet(replicas=n, rate=3.0 * n).commits, 0.9) for n in (1, 8, 32)]
    assert by_load == sorted(by_load)
    assert by_turn == sorted(by_turn)
    assert commits == sorted(commits)


def test_idle_replicas_whose_health_is_checked_leave_the_locks_of_the_log_free() -> None:
    idle = fleet(replicas=16, rate=0.0, warm_up=2.0, seconds=20.0)
    assert idle.lost_capacity == 0
    assert idle.use["log"] < 0.05


def test_the_looks_at_which_a_fleet_aims_fit_with_room_to_spare() -> None:
    assert LOOKS * REAL.look(256)[1] < 0.6


def test_bounded_hashing_spreads_what_plain_hashing_heaps_up() -> None:
    busiest = {
        policy: fleet(policy=policy, sessions=10, rate=30.0, replicas=4).busiest
        for policy in ("sticky", "bounded", "least")
    }
    assert busiest["least"] < busiest["bounded"] < busiest["sticky"]


def test_writers_share_the_lock_and_clients_of_one_the_transaction() -> None:
    of = calibrated(Appended(10, 10, 1.0), Appended(160, 10, 2.5), look=0.1)
    one, many, batched = simulated(of, 1, 1), simulated(of, 16, 1), simulated(of, 1, CALIBRATING)
    assert one.transaction == pytest.approx(0.1)
    assert many.seconds == pytest.approx(16 * one.seconds)
    assert batched.batch > 12


def test_every_parameter_has_a_source_and_the_measured_ones_a_machine() -> None:
    told = json.loads(MEASURED.read_text())
    assert told["machine"]["cores"] >= 1
    for name, (low, high) in assumptions().items():
        assert low <= getattr(REAL, name) <= high, name
    assert all(one.metadata["source"] for one in fields(Parameters) if one.metadata)


def test_a_report_has_a_line_for_every_row_and_parameter(tmp_path: Path) -> None:
    load = {"replicas": 1, "searches/s": 10.0, "answered/s": 9.0}
    log = {"log": "a", "replicas": 1, "commit p99 s": float("nan")}
    rows: dict[str, list[report.Row]] = {
        "Loads": [load],
        "The log": [log, {"log": "a", "replicas": 4.0, "commit p99 s": 0.5}],
        "Activations": [{"mode": "rolling", "replicas": 1, "seconds": 30.0}],
        "The epoch, idle": [{"heartbeat s": 0.5, "replicas": 1, "look p99 s": 0.01}],
        "Hot prompts": [{"policy": "least", "searches/s": 1.0, "busiest / mean": 1.0}],
    }
    report.write(REAL, rows, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "| 1 | 10 | 9 |" in text
    assert "| a | 1 |  |" in text
    assert all(f"`{one.name}`" in text for one in fields(Parameters) if one.metadata)
    assert (tmp_path / "fleet-scale.png").stat().st_size > 1000
