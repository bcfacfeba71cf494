"""Whether the weights that answer are those that were published.

A release comes with probes: texts, and the log-probabilities and values that its weights give them. Engines that
report a finished reload may still hold the old weights, half of the new ones, or the old weights' cached prefixes, so
only the figures are believed. A probe *tells the two apart* where the figures published with the new release differ
from those that the running one gave by at least `CLEAR` times the engine's tolerance; where none does, agreeing
proves little and the activation says so. The long text needs no published figure: read through the prefix cache and
then with the cache emptied, the same weights must give the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ramify.engines import Measured, Text
from ramify.weights import Probe

CLEAR = 10.0
"""Tolerances by which two releases must differ on a figure for it to tell them apart."""


class CanaryFailed(RuntimeError):
    """What is served is not what was published."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a canary has shown."""

    probes: int
    distinguishable: int
    """Probes that tell the release from the one before."""
    max_logprob_error: float
    """Largest distance from a published log-probability (natural logarithm)."""
    max_value_error: float


def texts_of(probes: Sequence[Probe]) -> list[Text]:
    return [Text(probe.prompt, probe.continuation) for probe in probes]


def distance(figure: float, expected: float, *, bound: bool = False) -> float:
    """How far a figure is from the expected one; not a number is infinitely far. A `bound` may lie above it."""
    if not math.isfinite(figure):
        return math.inf
    return max(0.0, expected - figure) if bound else abs(figure - expected)


def apart(figure: float, expected: float, tolerance: float, *, bound: bool = False) -> float:
    """The distance in tolerances, which grow with figures above 1."""
    return distance(figure, expected, bound=bound) / (tolerance * max(1.0, abs(expected)))


def compare(probes: Sequence[Probe], measured: Sequence[Measured], tolerance: float) -> list[float]:
    """For each probe, how many tolerances its worst figure is off."""
    return [max(_parts(probe, found, tolerance)) for probe, found in zip(probes, measured, strict=True)]


def _parts(probe: Probe, found: Measured, tolerance: float) -> list[float]:
    parts = [
        apart(figure, expected, tolerance, bound=bound)
        for figure, expected, bound in zip(found.logprobs, probe.logprobs, found.bounds, strict=True)
    ]
    return parts if found.value is None else [*parts, apart(found.value, probe.value, tolerance)]


def check(
    probes: Sequence[Probe],
    before: Sequence[Measured],
    rounds: Sequence[Sequence[Measured]],
    tolerance: float,
) -> Finding:
    """Compare what was measured after a reload, in each of `rounds`, with what was published; `before` is what the
    release before gave. Raises `CanaryFailed`."""
    logprob, value = 0.0, 0.0
    for measured in rounds:
        off = compare(probes, measured, tolerance)
        worst = max(range(len(off)), key=off.__getitem__, default=None)
        if worst is not None and not off[worst] <= 1.0:
            raise CanaryFailed(
                f"probe {worst} of {len(probes)} is {off[worst]:.1f} times the tolerance of {tolerance:g} from its "
                "published figures: these are not the weights that were published"
            )
        for probe, found in zip(probes, measured, strict=True):
            for figure, expected, bound in zip(found.logprobs, probe.logprobs, found.bounds, strict=True):
                logprob = max(logprob, distance(figure, expected, bound=bound))
            if found.value is not None:
                value = max(value, distance(found.value, probe.value))
    told_apart = sum(off >= CLEAR for off in compare(probes, before, tolerance))
    return Finding(len(probes), told_apart, logprob, value)


def same(one: Sequence[Measured], other: Sequence[Measured], tolerance: float, what: str) -> None:
    """Raise `CanaryFailed` unless both give the same figures."""
    for left, right in zip(one, other, strict=True):
        pairs = [*zip(left.logprobs, right.logprobs, strict=True)]
        if left.value is not None and right.value is not None:
            pairs.append((left.value, right.value))
        if not all(apart(a, b, tolerance) <= 1.0 for a, b in pairs):
            raise CanaryFailed(what)
