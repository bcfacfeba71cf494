"""The calibration of a scorer, fitted on graded answers: value = sigmoid(a · logit + b).

Platt (1999), "Probabilistic outputs for support vector machines", with his smoothed targets, by Newton's method with
halved steps (Lin, Lin and Weng, 2007).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ramify.evaluation.budgets import Budget
from ramify.evaluation.methods import Method
from ramify.evaluation.reading import graded
from ramify.evaluation.runner import Backend
from ramify.rewards.registry import task
from ramify.rewards.verifier import Example

EDGE = 1e-9
"""Values are taken for logits no nearer to 0 and 1 than this."""
STEPS = 100
CLOSE = 1e-9
"""The fit ends when a step gains less than this, a logarithm an answer."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A complete answer, judged by the scorer and by the verifier."""

    value: float
    """The scorer's, in [0, 1]."""
    right: bool


@dataclass(frozen=True, slots=True)
class Calibration:
    """A fit, and how good values are before and after it."""

    a: float
    b: float
    loss: tuple[float, float]
    """Mean negative log-likelihood before and after, natural logarithm."""
    brier: tuple[float, float]
    """Mean square error before and after."""
    auc: float
    """Chance that a right answer has a higher value than a wrong one; a calibration with a > 0 does not change it."""


async def judged_answers(
    backend: Backend,
    problems: Sequence[Example],
    draws: int,
    tokens: int,
    seed: int,
    concurrency: int,
    tell: Callable[[int], None],
) -> list[Judged]:
    """Draw answers to each problem and have them judged. tokens: cap on all draws of one problem. tell: hears how many
    problems are done. Raises what `Backend.grow` raises."""
    turn, done = asyncio.Semaphore(concurrency), 0
    method = Method("calibration", "best_of_n", "orm_max", simulations=draws)

    async def one(i: int, problem: Example) -> list[Judged]:
        nonlocal done
        async with turn:
            grown = await backend.grow(problem, method, Budget("tokens", tokens), seed + i)
            verdicts = await graded(grown.tree, task(problem.task, problem.problem))
        done += 1
        tell(done)
        # An answer drawn several times counts as often.
        nodes = (grown.tree.nodes[completion.node] for completion in grown.tree.completions)
        return [Judged(node.value, node.id in verdicts.right) for node in nodes if node.value is not None]

    found = await asyncio.gather(*(one(i, problem) for i, problem in enumerate(problems)))
    return [answer for answers in found for answer in answers]


def fit(answers: Sequence[Judged], before: tuple[float, float] = (1.0, 0.0)) -> Calibration:
    """Fit a and b to graded answers whose values were given under the calibration `before`.

    Raises `ValueError` if all of them are right, or all wrong, or all have one value."""
    right = sum(answer.right for answer in answers)
    if not 0 < right < len(answers):
        raise ValueError(
            f"{right} of {len(answers)} answers are right: a fit needs right ones and wrong ones"
        )
    if len({answer.value for answer in answers}) == 1:
        raise ValueError(f"all {len(answers)} answers have the value {answers[0].value:g}")
    logits = [(_logit(answer.value) - before[1]) / before[0] for answer in answers]
    high, low = (right + 1) / (right + 2), 1 / (len(answers) - right + 2)
    a, b = _newton(logits, [high if answer.right else low for answer in answers])
    values = [_sigmoid(a * x + b) for x in logits]
    given = [answer.value for answer in answers]
    outcomes = [float(answer.right) for answer in answers]
    return Calibration(
        a,
        b,
        (_loss(given, outcomes), _loss(values, outcomes)),
        (_brier(given, outcomes), _brier(values, outcomes)),
        _auc(logits, outcomes),
    )


def _newton(logits: Sequence[float], targets: Sequence[float]) -> tuple[float, float]:
    """Minimise the cross-entropy of sigmoid(a · x + b); it is convex in (a, b)."""
    a, b = 0.0, _logit(sum(targets) / len(targets))
    loss = _cross_entropy(a, b, logits, targets)
    for _ in range(STEPS):
        p = [_sigmoid(a * x + b) for x in logits]
        errors = [q - t for q, t in zip(p, targets, strict=True)]
        weights = [q * (1 - q) for q in p]
        ga, gb = sum(e * x for e, x in zip(errors, logits, strict=True)), sum(errors)
        # A little is added to the diagonal, so that it can be inverted however the logits lie.
        aa = sum(w * x * x for w, x in zip(weights, logits, strict=True)) + 1e-12
        ab, bb = sum(w * x for w, x in zip(weights, logits, strict=True)), sum(weights) + 1e-12
        det = aa * bb - ab * ab
        da, db = (bb * ga - ab * gb) / det, (aa * gb - ab * ga) / det
        size, gained = 1.0, 0.0
        while size > 1e-10:
            tried = _cross_entropy(a - size * da, b - size * db, logits, targets)
            if (gained := loss - tried) >= 0:
                a, b, loss = a - size * da, b - size * db, tried
                break
            size /= 2
        if gained < CLOSE * len(logits):
            break
    return a, b


def _cross_entropy(a: float, b: float, logits: Sequence[float], targets: Sequence[float]) -> float:
    total = 0.0
    for x, t in zip(logits, targets, strict=True):
        z = a * x + b
        total += max(z, 0.0) - z * t + math.log1p(math.exp(-abs(z)))
    return total


def _loss(values: Sequence[float], outcomes: Sequence[float]) -> float:
    pairs = zip((min(max(v, EDGE), 1 - EDGE) for v in values), outcomes, strict=True)
    return -sum(o * math.log(v) + (1 - o) * math.log(1 - v) for v, o in pairs) / len(values)


def _brier(values: Sequence[float], outcomes: Sequence[float]) -> float:
    return sum((v - o) ** 2 for v, o in zip(values, outcomes, strict=True)) / len(values)


def _auc(logits: Sequence[float], outcomes: Sequence[float]) -> float:
    """By ranks, equal logits sharing theirs (Mann and Whitney)."""
    ordered = sorted(zip(logits, outcomes, strict=True))
    ranks, start = 0.0, 0
    while start < len(ordered):
        end = start
        while end < len(ordered) and ordered[end][0] == ordered[start][0]:
            end += 1
        ranks += (start + 1 + end) / 2 * sum(outcome for _, outcome in ordered[start:end])
        start = end
    right = sum(outcomes)
    return (ranks - right * (right + 1) / 2) / (right * (len(ordered) - right))


def _logit(value: float) -> float:
    value = min(max(value, EDGE), 1 - EDGE)
    return math.log(value / (1 - value))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
