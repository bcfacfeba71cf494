"""Simulate how often a gate of some size promotes a candidate that is truly better, as good, or worse.

The model of a round: a problem's chance of a right sample is drawn from Beta(1/2, 3/2), a quarter on average. In a
share of the problems (`churn`) training has changed what the policy does, and chance and greedy answer are drawn anew:
answers change, and are neither better nor worse on average. Then every chance is moved so that the mean moves by
`effect`. The greedy answer is right with the problem's chance, and differs between the two policies only if the problem
has changed or the effect has moved it. The value models are left out: their figures only add to what can reject.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ramify_trainer.config import GateConfig
from ramify_trainer.gate.decision import decide
from ramify_trainer.gate.policy_scores import PolicyScores

__all__ = ["EFFECTS", "promoted_share"]

EFFECTS = (-0.08, -0.06, -0.05, -0.04, -0.03, -0.02, 0.0, 0.02, 0.04)
"""True differences of accuracy that a table shows."""

LEVEL = 0.25
"""Mean chance of a right sample."""
Floats = NDArray[np.float64]


def promoted_share(gate: GateConfig, effect: float, trials: int, churn: float = 0.15, seed: int = 0) -> float:
    """Return the share of `trials` rounds that are promoted, if candidates are better by `effect` (in accuracy, may be
    negative) than an incumbent that is the best so far as well.

    churn: share of problems on which training has changed the answers."""
    random = np.random.default_rng(seed)
    promoted = 0
    for trial in range(trials):
        incumbent, candidate = _round(gate, effect, churn, random)
        decision = decide(
            candidate, incumbent, incumbent, gate.margin, trial, greedy_margin=gate.greedy_margin
        )
        promoted += decision.promoted
    return promoted / trials


def _round(
    gate: GateConfig, effect: float, churn: float, random: np.random.Generator
) -> tuple[PolicyScores, PolicyScores]:
    """Return the scores of the incumbent and of the candidate."""
    n = gate.problems
    before, luck = random.beta(0.5, 1.5, n), random.random(n)
    changed = random.random(n) < churn
    after = np.where(changed, random.beta(0.5, 1.5, n), before)
    lucky = np.where(changed, random.random(n), luck)
    return _measured(before, luck, gate, random), _measured(_moved(after, effect), lucky, gate, random)


def _moved(chance: Floats, effect: float) -> Floats:
    """Return chances whose expected mean is moved by `effect`, still in [0, 1]."""
    if effect >= 0:
        return chance + effect * (1 - chance) / (1 - LEVEL)
    return chance * (1 + effect / LEVEL)


def _measured(chance: Floats, luck: Floats, gate: GateConfig, random: np.random.Generator) -> PolicyScores:
    mean = random.binomial(gate.answers, chance) / gate.answers

    def by_problem(scores: NDArray[Any]) -> dict[str, float]:
        return {str(i): float(score) for i, score in enumerate(scores)}

    return PolicyScores(by_problem(luck < chance), by_problem(mean))
