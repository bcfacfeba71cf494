"""Metrics of the replicas together: all of them on one page, each labelled with its replica's number, and how
many replicas there are to be, by the tokens that running searches have reserved."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from ramify.service.metrics import ReadAtScrape

LABEL = "replica"
SEEN = "ramify_replica_scraped"
RESERVED = "reserved_tokens"
"""Name under which a replica tells Ray Serve of its reserved tokens."""


def together(pages: Mapping[int, str | None]) -> bytes:
    """Return the pages of all replicas as one. pages: by number; `None` for one that did not answer."""
    registry = CollectorRegistry()
    registry.register(ReadAtScrape(lambda: _families(pages)))
    return generate_latest(registry)


def reading(page: str, name: str) -> float:
    """Return the value of a metric without labels. Raises `KeyError`."""
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name == name and not sample.labels:
                return float(sample.value)
    raise KeyError(name)


def _families(pages: Mapping[int, str | None]) -> Iterator[Metric]:
    families: dict[str, Metric] = {}
    seen = GaugeMetricFamily(SEEN, "1 if the replica gave its metrics, else 0.", labels=[LABEL])
    for number, page in sorted(pages.items()):
        found = _parsed(page)
        seen.add_metric([str(number)], float(found is not None))
        for family in found or ():
            mine = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            mine.samples += [
                sample._replace(labels={**sample.labels, LABEL: str(number)}) for sample in family.samples
            ]
    yield seen
    yield from families.values()


def _parsed(page: str | None) -> list[Metric] | None:
    """Return the families of a page; `None` if it is none, as of another program that has the replica's port by now."""
    try:
        return None if page is None else list(text_string_to_metric_families(page))
    except (ValueError, IndexError):
        return None


def wanted(reserved: Iterable[float], tokens: int | None) -> int:
    """Return how many replicas carry what is reserved if each carries `tokens` (`None`: all of it); at least one."""
    return 1 if tokens is None else max(1, math.ceil(sum(reserved) / tokens))


class ReservedTokens:
    """Ray Serve's autoscaling policy; the limits and delays are Serve's."""

    def __init__(self, tokens: int | None) -> None:
        self.tokens = tokens

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        told: Mapping[Any, float] = (context.aggregated_metrics or {}).get(RESERVED, {})
        if not told:  # nobody has told anything yet
            return context.target_num_replicas, {}
        return wanted(told.values(), self.tokens), {}
