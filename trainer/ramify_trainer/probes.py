"""/livez, /readyz and /metrics of `ramify-trainer run`: three GETs without bodies or secrets.

Counts over rounds come from the state file, so that they go on after a restart.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from ramify.connections import ConnectionLimits
from ramify_trainer.loop.rounds import Loop
from ramify_trainer.loop.state import RoundResult, State


@dataclass
class Health:
    """The readiness of the trainer, kept by the service: the server answers, the lease is held, the phase gets on."""

    loop: Loop
    stall_seconds: float
    away: str | None = "no server was asked yet"
    """The server that is away, and why it counts so; None if all are there."""
    _store_failure: tuple[tuple[str, int], str] | None = field(default=None, init=False)
    """Where the run was when the object store of releases failed it last, and how it failed; None if it never did."""

    def store_failed(self, reason: str) -> None:
        """Note that the present phase waits for the object store: it does so until it is done or another begins, also
        while it is tried again."""
        self._store_failure = self.loop.progress.place, reason

    @property
    def leased(self) -> bool:
        return self.loop.puller.leased

    @property
    def reason(self) -> str | None:
        """Reason why the trainer is not ready; None if it is."""
        progress = self.loop.progress
        if self.away is not None:
            return self.away
        if self._store_failure is not None and self._store_failure[0] == progress.place:
            return self._store_failure[1]
        if not self.leased:
            return f"the lease of the consumer {self.loop.config.name} is not held"
        if progress.idle > self.stall_seconds:
            return f"the phase {progress.phase} has not moved for {progress.idle:.0f} s"
        return None

    def report(self) -> dict[str, object]:
        """Return the readiness, and how far the run is, for people."""
        progress, state = self.loop.progress, getattr(self.loop, "state", None)
        last = state.history[-1] if state is not None and state.history else None
        return {
            "ready": self.reason is None,
            "reason": self.reason,
            "round": None if state is None else state.round,
            "phase": progress.phase,
            "done": progress.done,
            "total": progress.total,
            "idle_seconds": round(progress.idle, 1),
            "release": None if state is None else state.incumbent,
            "last_round_seconds": {} if last is None else {**last.seconds, "canary": last.canary_seconds},
        }


PREFIX = "ramify_trainer"


class Metrics(Collector):
    """One trainer's."""

    def __init__(self, health: Health) -> None:
        self.health = health
        self.lag_seconds = 0.0
        """Age of the oldest record beyond the cursor, when last looked at."""
        self.registry = CollectorRegistry()
        ProcessCollector(namespace=PREFIX, registry=self.registry)
        self.registry.register(self)

    def text(self) -> bytes:
        """Return the exposition format."""
        return generate_latest(self.registry)

    def describe(self) -> list[Metric]:
        return []  # what there is depends on the run

    def collect(self) -> Iterator[Metric]:
        yield from self._service()
        state = getattr(self.health.loop, "state", None)
        if state is not None:
            yield from _run(state)
            last = state.history[-1] if state.history else state.current
            yield _figures("training", "Training figures of the last round.", last.training)
            yield _figures("gate", "The gate's figures of the last round.", last.gate)

    def _service(self) -> Iterator[Metric]:
        loop, health = self.health.loop, self.health
        progress, puller = loop.progress, loop.puller
        yield _gauge("ready", "Whether /readyz is 200.", health.reason is None)
        yield _gauge("server_up", "Whether the server answered when last asked.", health.away is None)
        yield _gauge("lease_held", "Whether the log's cursor is this trainer's.", health.leased)
        yield _gauge("idle_seconds", "Since the present phase last moved.", progress.idle)
        yield _gauge("backlog", "Records beyond the cursor, when last looked at.", puller.backlog)
        yield _gauge("lag_seconds", "Age of the oldest of them.", self.lag_seconds)
        set_aside = sum(1 for _ in puller.quarantine.glob("*.json")) if puller.quarantine.exists() else 0
        yield _counter("quarantined_records", "Records that were no trees.", set_aside)
        yield _labelled(GaugeMetricFamily, "phase", "The present phase is 1.", "phase", {progress.phase: 1.0})
        yield _labelled(
            CounterMetricFamily,
            "phase_seconds",
            "Spent in each phase by this process.",
            "phase",
            progress.seconds,
        )
        yield _labelled(CounterMetricFamily, "phases", "Done by this process.", "phase", progress.times)


def _run(state: State) -> Iterator[Metric]:
    rounds = [*state.history, state.current]
    verdicts = {v: float(sum(r.result == v for r in state.history)) for v in get_args(RoundResult)}
    yield _labelled(CounterMetricFamily, "rounds", "Ended, by result.", "verdict", verdicts)
    yield _gauge("round", "The present one.", state.round)
    yield _gauge("cursor", "The log's seq up to which the last pull has read.", state.upto)
    yield _counter("steps", "Optimizer steps behind the newest candidate.", max(r.steps for r in rounds))
    yield _counter("tokens", "Generated by the trainer's own searches.", sum(r.tokens for r in rounds))
    yield _counter("records", "Read of the log.", sum(r.records for r in rounds))
    yield _counter("trees", "Learned from.", sum(r.trees for r in rounds))
    yield _counter("verdicts", "Feedback read.", sum(r.verdicts for r in rounds))
    yield _counter(
        "revisited_trees", "Trees of earlier rounds, for new feedback.", sum(r.revisited for r in rounds)
    )
    served = GaugeMetricFamily(
        f"{PREFIX}_release_info", "What is served, and the best so far.", labels=["release", "best"]
    )
    served.add_metric([state.incumbent, state.best], 1.0)
    yield served


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, value=float(value))


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"{PREFIX}_{name}", text, value=float(value))


def _figures(name: str, text: str, figures: Mapping[str, float]) -> Metric:
    return _labelled(
        GaugeMetricFamily, name, text, "figure", {k.replace("/", "_"): v for k, v in figures.items()}
    )


def _labelled(
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily],
    name: str,
    text: str,
    label: str,
    values: Mapping[str, float],
) -> Metric:
    family = kind(f"{PREFIX}_{name}", text, labels=[label])
    for key, value in dict(values).items():
        family.add_metric([key], float(value))
    return family


LIMITS = ConnectionLimits(open=32, head_bytes=8 << 10, head_seconds=5, body_seconds=5, idle_seconds=5)
"""Enough for a prober, and no more."""
GRACE = 1
"""Seconds that answers may take to leave when the trainer ends."""
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Message = MutableMapping[str, Any]
Reply = tuple[int, str, bytes]


class Routes:
    """The ASGI application."""

    def __init__(self, health: Health, metrics: Metrics) -> None:
        self.health, self.metrics = health, metrics

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http":
            return
        status, kind, body = self.answer(scope["method"], scope["path"])
        headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        headers += [(b"cache-control", b"no-store"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def answer(self, method: str, path: str) -> Reply:
        """Return status, content type and body."""
        if path not in ("/livez", "/readyz", "/metrics"):
            return _json(404, {"error": "there are /livez, /readyz and /metrics"})
        if method not in ("GET", "HEAD"):
            return _json(405, {"error": "GET only"})
        if path == "/livez":
            return _json(200, {"live": True})
        if path == "/metrics":
            return 200, METRICS_TYPE, self.metrics.text()
        return _json(200 if self.health.reason is None else 503, self.health.report())


def _json(status: int, content: object) -> Reply:
    return status, "application/json", json.dumps(content).encode() + b"\n"
