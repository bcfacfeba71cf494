"""The calibration of a scorer, fitted on graded answers: value = sigmoid(a · logit + b).

Platt (1999), "Probabilistic outputs for support vector machines", with his smoothed targets, by Newton's method with
halved steps (Lin, Lin and Weng, 2007).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ramify.engines.scorer import logit
from ramify.evaluation.budgets import Budget
from ramify.evaluation.methods import Method
from ramify.evaluation.runner import Backend, ProblemRefused, grow_and_grade
from ramify.races import all_of
from ramify.rewards.verifier import Example
from ramify.search.tree import Node
from ramify.statistics import Floats, auc

STEPS = 100
CLOSE = 1e-9
"""The fit ends when a step gains less than this, a logarithm an answer."""


JudgedAnswer = tuple[float, bool]
"""The scorer's value of a complete answer, in [0, 1], and whether it is right by the verifier."""


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
    scorer: str | None = None,
) -> list[JudgedAnswer]:
    """Draw answers to each problem and have them judged by a model. tokens: cap on all draws of one problem. tell:
    hears how many problems are done; those that are refused are left out. scorer: the one that is meant, by name, if
    there are several.

    Raises `SearchFailed`, `ProblemRefused` if every problem is refused, and `ValueError` if there is no such scorer."""
    turn, done = asyncio.Semaphore(concurrency), 0
    method = Method("calibration", "best_of_n", "orm_max", {"grader": "model"}, simulations=draws)
    refusals: list[ProblemRefused] = []

    async def one(problem: Example) -> list[JudgedAnswer]:
        nonlocal done
        try:
            async with turn:
                grown, grades = await grow_and_grade(backend, problem, method, Budget("tokens", tokens), seed)
        except ProblemRefused as reason:
            refusals.append(reason)
            return []
        finally:
            done += 1
            tell(done)
        # An answer drawn several times counts as often.
        nodes = (grown.tree.nodes[completion.node] for completion in grown.tree.completions)
        judged = ((_value(node, scorer), node.id in grades.right) for node in nodes)
        return [(value, right) for value, right in judged if value is not None]

    found = await all_of(map(one, problems))
    if refusals and len(refusals) == len(problems):
        raise refusals[0]
    return [answer for answers in found for answer in answers]


def _value(node: Node, scorer: str | None) -> float | None:
    """Return what the scorer that is meant gave a node."""
    if scorer is None and not node.scores:
        return node.value
    if scorer is None or scorer not in (node.scores or {}):
        named = ", ".join(node.scores or ()) or "none with a name"
        raise ValueError(f"name the scorer that is meant (--scorer); the server has {named}")
    return (node.scores or {})[scorer]


def fit(answers: Sequence[JudgedAnswer], before: tuple[float, float] = (1.0, 0.0)) -> Calibration:
    """Fit a and b to graded answers whose values were given under the calibration `before`.

    Raises `ValueError` if all of them are right, or all wrong, or all have one value."""
    given, right = np.array([value for value, _ in answers]), np.array([right for _, right in answers], bool)
    count = int(right.sum())
    if not 0 < count < len(answers):
        raise ValueError(
            f"{count} of {len(answers)} answers are right: a fit needs right ones and wrong ones"
        )
    if np.all(given == given[0]):
        raise ValueError(f"all {len(answers)} answers have the value {given[0]:g}")
    logits = (_logits(given) - before[1]) / before[0]
    high, low = (count + 1) / (count + 2), 1 / (len(answers) - count + 2)
    a, b = _newton(logits, np.where(right, high, low))
    fitted = _sigmoids(a * logits + b)
    area = auc(logits, right)
    assert area is not None
    return Calibration(
        a,
        b,
        (_loss(given, right), _loss(fitted, right)),
        (_brier(given, right), _brier(fitted, right)),
        area,
    )


def _newton(logits: Floats, targets: Floats) -> tuple[float, float]:
    """Minimise the cross-entropy of sigmoid(a · x + b) by damped Newton steps; it is convex in (a, b).

    logits, targets: [N]."""
    x = np.stack([logits, np.ones_like(logits)])
    found = np.array([0.0, logit(float(targets.mean()))])
    loss = _cross_entropy(found @ x, targets)
    for _ in range(STEPS):
        p = _sigmoids(found @ x)
        # A little is added to the diagonal, so that it can be inverted however the logits lie.
        step = np.linalg.solve((x * (p * (1 - p))) @ x.T + 1e-12 * np.eye(2), x @ (p - targets))
        gained = 0.0
        while np.abs(step).max() > 1e-10:
            tried = _cross_entropy((found - step) @ x, targets)
            if (gained := loss - tried) >= 0:
                found, loss = found - step, tried
                break
            step /= 2
        if gained < CLOSE * len(logits):
            break
    return float(found[0]), float(found[1])


def _cross_entropy(z: Floats, targets: Floats) -> float:
    """Return the sum over logits z [N] of -t · log(sigmoid(z)) - (1 - t) · log(1 - sigmoid(z))."""
    return float((np.logaddexp(0, z) - z * targets).sum())


def _sigmoids(z: Floats) -> Floats:
    shares: Floats = np.exp(-np.logaddexp(0, -z))
    return shares


def _logits(values: Floats) -> Floats:
    return np.array([logit(value) for value in values])


def _loss(values: Floats, right: NDArray[np.bool_]) -> float:
    return _cross_entropy(_logits(values), right.astype(np.float64)) / len(values)


def _brier(values: Floats, right: NDArray[np.bool_]) -> float:
    return float(((values - right) ** 2).mean())
