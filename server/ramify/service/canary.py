"""Check that the weights that answer are those that were published.

A release comes with probes: texts, and the log-probabilities and values that its weights give them. Engines that
report a finished reload may still hold the old weights, half of the new ones, or the old weights' cached prefixes, so
only the figures are believed. A probe *tells the two apart* if the figures published with the new release differ from
those that the running one gave by at least `CLEAR` times the engine's tolerance, all figures together (the root of
the sum of squares), and by twice what the same weights may differ. If no probe does, agreement proves little, and the
activation says so. The long text needs no published figure: read through the prefix cache and then with the cache
emptied, the same weights must give the same.

2026-11-24: all figures of a probe count together; before, the largest one did. An optimizer step moves many tokens
a little, so in bfloat16, whose tolerance is 0.1, hardly a round of training had a single token that moved by 1. Figures
that agree within the tolerance still differ by a share of it, which many of them add up: that share is taken off.

2026-11-29: all log-probabilities together tell what is the same, too; before, the worst one had to be within the
tolerance, and the worst of 200 tokens of a model of 30 layers in bfloat16 hardly ever was. A value still stands alone.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from ramify.engines import Measurement, Text
from ramify.service.ports import Engines
from ramify.weights import Probe, Release

CLEAR = 10.0
"""Tolerances by which two releases must differ on a probe for it to tell them apart."""
NOISE = 1 / 3
"""Usual distance of two computations of one figure, as a share of the tolerance."""
ROOM = 1 / 2
"""The same, beyond which figures are not those of the same weights (root mean square); one alone has the tolerance."""


@dataclass(frozen=True, slots=True)
class CanaryReport:
    """The result of a canary."""

    probes: int
    distinguishable: int
    """Probes that tell the release from the one before."""
    max_logprob_error: float
    """Largest distance from a published log-probability (natural logarithm)."""
    max_value_error: float


NOT_ASKED = CanaryReport(0, 0, 0.0, 0.0)
"""The report on a release that was served already."""


def texts_of(probes: Sequence[Probe]) -> list[Text]:
    return [Text(probe.prompt, probe.continuation) for probe in probes]


def distance(figure: float, expected: float, *, bound: bool = False) -> float:
    """Return how far a figure is from the expected one; NaN is infinitely far. A `bound` may lie above it."""
    if not math.isfinite(figure):
        return math.inf
    return max(0.0, expected - figure) if bound else abs(figure - expected)


def apart(figure: float, expected: float, tolerance: float, *, bound: bool = False) -> float:
    """Return the distance in tolerances, which grow with figures above 1."""
    return distance(figure, expected, bound=bound) / (tolerance * max(1.0, abs(expected)))


def compare(probes: Sequence[Probe], measured: Sequence[Measurement], tolerance: float) -> list[float]:
    """Return for each probe how far its figures are off, as a multiple of what those of the same weights may be."""
    return [
        _excess(_logprob_parts(probe, measurement, tolerance), _value_parts(probe, measurement, tolerance))
        for probe, measurement in zip(probes, measured, strict=True)
    ]


def _excess(*kinds: Sequence[float]) -> float:
    """Return the largest excess of some kinds of figures, each given by its distances in tolerances."""
    return max(math.hypot(*parts) / _room(len(parts)) for parts in kinds)


def _room(figures: int) -> float:
    """Return how many tolerances so many figures of the same weights may be off together."""
    return max(1.0, ROOM * math.sqrt(figures))


def separation(probe: Probe, measurement: Measurement, tolerance: float) -> float:
    """Return how many tolerances all figures together are off, beyond what the same weights would be."""
    parts = [
        *_logprob_parts(probe, measurement, tolerance),
        *_value_parts(probe, measurement, tolerance),
    ]
    return math.sqrt(max(0.0, sum(part**2 for part in parts) - len(parts) * NOISE**2))


def _logprob_parts(probe: Probe, measurement: Measurement, tolerance: float) -> list[float]:
    return [
        apart(figure, expected, tolerance, bound=bound)
        for figure, expected, bound in zip(
            measurement.logprobs, probe.logprobs, measurement.bounds, strict=True
        )
    ]


def _value_parts(probe: Probe, measurement: Measurement, tolerance: float) -> list[float]:
    return [] if measurement.value is None else [apart(measurement.value, probe.value, tolerance)]


def check(
    probes: Sequence[Probe],
    before: Sequence[Measurement],
    rounds: Sequence[Sequence[Measurement]],
    tolerance: float,
) -> CanaryReport:
    """Compare what was measured after a reload, in each of `rounds`, with what was published; `before` is what the
    release before gave. Raises `RuntimeError` if they differ."""
    logprob, value = 0.0, 0.0
    # Figures that are within their room of the published ones are then nearer to these than to those of before.
    clear = [
        separation(p, m, tolerance) >= max(CLEAR, 2 * _room(len(p.logprobs)))
        for p, m in zip(probes, before, strict=True)
    ]
    for measured in rounds:
        off = compare(probes, measured, tolerance)
        worst = max(range(len(off)), key=off.__getitem__, default=None)
        if worst is not None and not off[worst] <= 1.0:
            raise RuntimeError(
                f"probe {worst} of {len(probes)} is {off[worst]:.1f} times as far from its published figures as "
                f"the same weights may be (tolerance {tolerance:g}): these are not the weights that were published"
            )
        for probe, measurement in zip(probes, measured, strict=True):
            for figure, expected, bound in zip(
                measurement.logprobs, probe.logprobs, measurement.bounds, strict=True
            ):
                logprob = max(logprob, distance(figure, expected, bound=bound))
            if measurement.value is not None:
                value = max(value, distance(measurement.value, probe.value))
    return CanaryReport(len(probes), sum(clear), logprob, value)


async def ask(
    engines: Engines,
    release: Release,
    texts: Sequence[Text],
    before: Sequence[Measurement],
    calibration: tuple[float, float],
    empty_caches: Callable[[], Awaitable[None]],
) -> CanaryReport:
    """Measure the canary of a release that the calling task leases, with the caches as they are and emptied.

    texts: those of the canary first. before: their figures under the release before. Raises `RuntimeError` as `check`
    and `same` do."""
    probes, tolerance = release.manifest.canary, engines.tolerance
    first = await engines.measure(texts, calibration)
    await empty_caches()
    second = await engines.measure(texts, calibration)
    report = check(probes, before[: len(probes)], (first[: len(probes)], second[: len(probes)]), tolerance)
    same(first, second, tolerance, "cached prefixes of the weights before are still in use")
    return report


def same(one: Sequence[Measurement], other: Sequence[Measurement], tolerance: float, what: str) -> None:
    """Raise `RuntimeError` unless both give the same figures."""
    for left, right in zip(one, other, strict=True):
        logprobs = [apart(a, b, tolerance) for a, b in zip(left.logprobs, right.logprobs, strict=True)]
        values = []
        if left.value is not None and right.value is not None:
            values = [apart(left.value, right.value, tolerance)]
        if not _excess(logprobs, values) <= 1.0:
            raise RuntimeError(what)
