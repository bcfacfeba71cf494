"""Targets of the policy: at each operand and operator the exact distribution over the steps that lead on.

A solved walk is one sample of :mod:`posterior`'s distribution. If few enough numbers are left, the whole
distribution is the target instead, taken along the walk: the first operand over all steps, the operator given
the operand, the second operand given both. ``=``, the result and the line's end are certain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ramify.rewards.countdown import MAX_RESULT
from research.bootstrap.posterior import next_steps, success
from research.bootstrap.tokenizer import OPERATORS, first_number, later_number

__all__ = ["StepTargets", "soft_cross_entropy", "states", "step_targets"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

_VALUES = MAX_RESULT + 1
_FIRST = torch.from_numpy(first_number(np.arange(_VALUES)))
_LATER = torch.from_numpy(later_number(np.arange(_VALUES)))
_OPERATORS = torch.tensor([OPERATORS[op] for op in "+-*/"])


@dataclass(frozen=True, slots=True)
class StepTargets:
    """The targets of one line of B walks; every row sums to 1."""

    first: Tensor
    """The larger operand [B, 200]."""
    operator: Tensor
    """The operator [B, 4], given the walk's larger operand."""
    second: Tensor
    """The smaller operand [B, 200], given the walk's larger operand and operator."""


def step_targets(numbers: Ints, steps: Ints, exact_from: int) -> list[StepTargets | None]:
    """Return the targets of each line of walks: numbers [B, n], steps [B, n - 1, (a, op, b, c)].

    None for lines with more than ``exact_from`` numbers left: there the walk itself is the target.
    """
    return [
        _targets(left, step, steps[:, -1, 3]) if left.shape[1] <= exact_from else None
        for left, step in zip(states(numbers, steps), steps.transpose(1, 0, 2), strict=False)
    ]


def states(numbers: Ints, steps: Ints) -> list[Ints]:
    """Return the numbers left before the first line and after each: n arrays, [B, n] to [B, 1].

    An operand that is not there takes the place of any number.
    """
    left, states = numbers, [numbers]
    rows = np.arange(len(numbers))
    for step in steps.transpose(1, 0, 2):
        kept = np.ones(left.shape, dtype=bool)
        for operand in (step[:, 0], step[:, 2]):
            wanted = kept * (1 + (left == operand[:, None]))
            kept[rows, wanted.argmax(axis=1)] = False
        left = np.concatenate([left[kept].reshape(len(left), -1), step[:, 3:]], axis=1)
        states.append(left)
    return states


def _targets(left: Ints, step: Ints, targets: Ints) -> StepTargets:
    count = left.shape[1]
    options = next_steps(left)
    rows, choices = options.a.shape
    after = success(options.left.reshape(rows * choices, count - 1), np.repeat(targets, choices))
    weight = options.chance * after.reshape(rows, choices)
    operator = np.tile(np.arange(4), choices // 4)
    with_first = weight * (options.a == step[:, :1])
    with_both = with_first * (operator == step[:, 1:2])
    return StepTargets(
        first=_distribution(options.a, weight, _VALUES),
        operator=_distribution(np.broadcast_to(operator, weight.shape), with_first, 4),
        second=_distribution(options.b, with_both, _VALUES),
    )


def _distribution(values: Ints, weight: Floats, size: int) -> Tensor:
    """Return [B, size]: the weights [B, M] summed by value [B, M], and normalised."""
    rows = np.repeat(np.arange(len(values)), values.shape[1])
    flat = rows * size + values.ravel()
    total = np.bincount(flat, weights=weight.ravel(), minlength=len(values) * size).reshape(-1, size)
    return torch.from_numpy((total / total.sum(axis=1, keepdims=True)).astype(np.float32))


def soft_cross_entropy(logits: Tensor, answers: Tensor, targets: list[StepTargets | None]) -> Tensor:
    """Return the mean cross-entropy of answers [B, T] under logits [B, T, V], exact targets if there are any."""
    logprobs = logits.log_softmax(dim=-1)
    losses = list((-logprobs.gather(-1, answers[..., None])[..., 0]).unbind(dim=1))
    for line, target in enumerate(targets):
        if target is not None:
            at = 6 * line
            losses[at] = -(logprobs[:, at, _FIRST] * target.first).sum(dim=-1)
            losses[at + 1] = -(logprobs[:, at + 1, _OPERATORS] * target.operator).sum(dim=-1)
            losses[at + 2] = -(logprobs[:, at + 2, _LATER] * target.second).sum(dim=-1)
    return torch.stack(losses, dim=1).mean()
