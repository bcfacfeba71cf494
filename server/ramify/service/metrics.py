"""Figures for Prometheus, named after vLLM's conventions with the prefix `ramify_`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector

from ramify.engines import Serving
from ramify.search.records import PolicyUsage, Usage
from ramify.search.tree import Tree

SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
TOKENS = (10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
Figures = Callable[[], Mapping[str, float]]


class Metrics:
    """One server's figures, in a registry of their own."""

    def __init__(self) -> None:
        r = self.registry = CollectorRegistry()
        ProcessCollector(namespace="ramify", registry=r)
        self._searches = Counter(
            "ramify_searches", "Searches ended.", ["algorithm", "status", "stop_reason"], registry=r
        )
        self._seconds = Histogram(
            "ramify_search_duration_seconds",
            "Seconds from a search's admission to the log.",
            ["algorithm"],
            buckets=SECONDS,
            registry=r,
        )
        self._wait = Histogram(
            "ramify_admission_wait_seconds",
            "Seconds that a request waited to be admitted.",
            buckets=SECONDS,
            registry=r,
        )
        self._tokens = Histogram(
            "ramify_search_generated_tokens",
            "Tokens that one search generated.",
            ["algorithm"],
            buckets=TOKENS,
            registry=r,
        )
        self._generated = Counter(
            "ramify_generated_tokens", "Tokens that all searches generated.", registry=r
        )
        self._scored = Counter(
            "ramify_scored_sequences", "Sequences that scorers judged, each of several counted.", registry=r
        )
        self._simulations = Counter("ramify_simulations", "Simulations of all searches.", registry=r)
        self._truncated = Counter(
            "ramify_truncated_answers",
            "Draws of searches cut before the answer's end, by max_depth or by max_tokens.",
            ["by"],
            registry=r,
        )
        self._pruned = Counter(
            "ramify_pruned_branches", "Draws of searches that safety scorers closed.", ["scorer"], registry=r
        )
        self._policy_tokens = Counter(
            "ramify_policy_tokens", "Tokens generated in searches that name policies.", ["policy"], registry=r
        )
        self._policy_draws = Counter(
            "ramify_policy_draws", "Draws of searches that name policies.", ["policy"], registry=r
        )
        self._policy_closed = Counter(
            "ramify_policy_closed",
            "Searches in which a policy failed and was asked no more.",
            ["policy"],
            registry=r,
        )
        self._completions = Counter(
            "ramify_completions", "Plain completions ended.", ["route", "outcome"], registry=r
        )
        self._completion_tokens = Counter(
            "ramify_completion_tokens", "Tokens that plain completions generated.", ["route"], registry=r
        )
        self._rejected = Counter(
            "ramify_admission_rejections", "Searches refused, by reason.", ["reason"], registry=r
        )
        self._grading = Counter(
            "ramify_grading_failures", "Verifiers that failed, by kind; no verdicts.", ["kind"], registry=r
        )
        self._feedback = Counter(
            "ramify_feedback_failures",
            "Feedback that could not be had, by kind; the answer is not bettered.",
            ["kind"],
            registry=r,
        )
        self._log_failures = Counter("ramify_log_failures", "Trees that could not be logged.", registry=r)
        self._expired = Counter("ramify_log_expired_trees", "Trees deleted by retention.", registry=r)
        self._requests = Counter(
            "ramify_http_requests", "Requests answered.", ["method", "route", "status"], registry=r
        )
        self._request_seconds = Histogram(
            "ramify_http_request_duration_seconds",
            "Seconds from a request to the last byte of its answer.",
            ["route"],
            buckets=SECONDS,
            registry=r,
        )
        self._serving: tuple[str, Callable[[], Serving]] | None = None
        self._info = Gauge(
            "ramify_info",
            "The server's version, model and release, and whether its policy is on another server.",
            ["version", "model", "release", "remote"],
            registry=r,
        )

        self._release = Gauge(
            "ramify_release_info", "The release that is served.", ["model", "release"], registry=r
        )
        self._activations = Counter(
            "ramify_release_activations", "Releases asked to be activated, by result.", ["result"], registry=r
        )
        self._reload_seconds = Histogram(
            "ramify_release_reload_seconds",
            "Seconds until both engines had other weights.",
            buckets=SECONDS,
            registry=r,
        )

    def serving(self, version: str, read: Callable[[], Serving]) -> None:
        """Show the server's version and whatever `read()` serves at the time of a scrape."""
        self._serving = version, read

    def activation(self, result: str) -> None:
        """Count an activation: `activated`, `rolled_back` (it had been loaded), `refused` (it had not) or `fatal`."""
        self._activations.labels(result).inc()

    def reloaded(self, seconds: float) -> None:
        self._reload_seconds.observe(seconds)

    def watch(self, prefix: str, figures: Figures) -> None:
        """Show whatever `figures()` gives as gauges named `prefix` and its keys."""

        def gauges() -> Iterator[Metric]:
            for name, value in figures().items():
                yield GaugeMetricFamily(f"{prefix}_{name}", name.replace("_", " "), value=value)

        self.registry.register(ReadAtScrape(gauges))

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        Gauge(name, text, registry=self.registry).set_function(read)

    def started(self, waited: float) -> None:
        """Note a search that was admitted after `waited` seconds."""
        self._wait.observe(waited)

    def ended(self, tree: Tree, seconds: float) -> None:
        """Count an ended search, but for the part that it goes on from. seconds: from its admission to the log."""
        algorithm, usage = tree.params.algorithm, tree.usage
        before = tree.continues.usage if tree.continues else Usage()
        self._searches.labels(algorithm, tree.status, tree.stop_reason or "none").inc()
        self._seconds.labels(algorithm).observe(seconds)
        self._tokens.labels(algorithm).observe(usage.completion_tokens - before.completion_tokens)
        self._scored.inc(usage.scored_sequences - before.scored_sequences)
        self._simulations.inc(usage.simulations - before.simulations)
        for node in tree.nodes[before.nodes :]:
            if node.terminal == "truncated":
                by = "max_tokens" if node.length >= tree.sampling.max_tokens else "max_depth"
                self._truncated.labels(by).inc(node.multiplicity)
            elif node.pruned_by is not None:
                self._pruned.labels(node.pruned_by).inc(node.multiplicity)
        parts = before.by_policy or {}
        for name, whole in (usage.by_policy or {}).items():
            part = parts.get(name, PolicyUsage())
            self._policy_tokens.labels(name).inc(whole.completion_tokens - part.completion_tokens)
            self._policy_draws.labels(name).inc(whole.draws - part.draws)
            self._policy_closed.labels(name).inc(whole.closed is not None and part.closed is None)

    def generated(self, tokens: int) -> None:
        self._generated.inc(max(0, tokens))

    def completed(self, route: str, outcome: str, tokens: int) -> None:
        """Count the end of a plain completion. If it was cut short, `tokens` are those heard of until then."""
        self._completions.labels(route, outcome).inc()
        self._completion_tokens.labels(route).inc(tokens)

    def rejected(self, reason: str) -> None:
        self._rejected.labels(reason).inc()

    def grading_failed(self, kind: str) -> None:
        self._grading.labels(kind).inc()

    def feedback_failed(self, kind: str) -> None:
        self._feedback.labels(kind).inc()

    def expired(self, trees: int) -> None:
        self._expired.inc(trees)

    def log_failed(self) -> None:
        self._log_failures.inc()

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        self._requests.labels(method, route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Return all figures in Prometheus' exposition format."""
        if self._serving is not None:
            version, read = self._serving
            now = read()
            for gauge, labels in (
                (self._info, (version, now.name, now.release, str(now.remote).lower())),
                (self._release, (now.name, now.release)),
            ):
                gauge.clear()
                gauge.labels(*labels).set(1)
        return generate_latest(self.registry)


class ReadAtScrape:
    """A collector whose metrics, and their names, are made anew at every scrape."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self.collect = collect
