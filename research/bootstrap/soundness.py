"""Which lines of written answers are right, taken one by one: what the value model has to see before it can judge.

An answer is right if every line is sound and the last result is the target. One verdict an answer teaches a small
network slowly; a verdict a line, and the result that each line should have had, teach it within a few thousand
steps that `48 + 1 = 51` only claims its target (2026-11-24).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ramify.rewards.countdown import MAX_RESULT
from research.bootstrap.tokenizer import EOS, EQUALS, NEWLINE, OPERATORS, first_number, later_number

__all__ = ["Lines", "apply_all", "inspect", "read_lines"]

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

DIVIDE = 3
"""The index of `/` in `+-*/`."""
_OPERATORS = np.array([OPERATORS[op] for op in "+-*/"])


@dataclass(frozen=True, slots=True)
class Lines:
    """The lines of B answers, [B, L] each."""

    sound: Bools
    """Operands that are there, larger first, and their legal result."""
    judged: Bools
    """True for the lines that `sound` is meant for: up to the first line whose operands are not there; what is left
    after it is anybody's guess."""
    results: Ints
    """Result of a op b; -1 if the rules forbid it."""


def inspect(numbers: Ints, steps: Ints) -> Lines:
    """Judge the lines of answers to numbers [B, n]: steps [B, L, (a, op, b, c)], L < n."""
    left, rows = numbers.copy(), np.arange(len(numbers))
    shape = steps.shape[:2]
    lines = Lines(np.zeros(shape, bool), np.zeros(shape, bool), np.zeros(shape, np.int64))
    judged = np.ones(len(numbers), bool)
    for at in range(shape[1]):
        a, op, b, c = steps[:, at].T
        kept, there = np.ones(left.shape, bool), np.ones(len(left), bool)
        for operand in (a, b):
            wanted = kept * (1 + (left == operand[:, None]))
            there &= wanted.max(axis=1) == 2
            kept[rows, wanted.argmax(axis=1)] = False
        result, legal = apply_all(a, op, b)
        lines.sound[:, at], lines.judged[:, at] = there & legal & (result == c), judged
        lines.results[:, at] = np.where(legal, result, -1)
        judged = judged & there
        left = np.concatenate([left[kept].reshape(len(left), -1), c[:, None]], axis=1)
    return lines


def apply_all(a: Ints, op: Ints, b: Ints) -> tuple[Ints, Bools]:
    """Return a op b, and whether that is a legal step; op counts + - * / from 0."""
    result = np.choose(op, [a + b, a - b, a * b, a // np.maximum(b, 1)])
    exact = (op != DIVIDE) | ((b > 0) & (a % np.maximum(b, 1) == 0))
    return result, (a >= b) & exact & (result <= MAX_RESULT)


def read_lines(answers: Ints) -> tuple[Ints, Bools]:
    """Return the steps [B, T / 6, 4] of answers [B, T] and which lines have a step's form, as do all before them."""
    tokens = answers.reshape(len(answers), answers.shape[1] // 6, 6)
    steps = np.empty((*tokens.shape[:2], 4), dtype=np.int64)
    steps[..., 0] = tokens[..., 0] - first_number(0)
    steps[..., 1] = (tokens[..., 1, None] == _OPERATORS).argmax(axis=-1)
    steps[..., 2], steps[..., 3] = tokens[..., 2] - later_number(0), tokens[..., 4] - later_number(0)
    numbers = steps[..., [0, 2, 3]]
    formed = ((numbers >= 0) & (numbers <= MAX_RESULT)).all(axis=-1) & (tokens[..., 3] == EQUALS)
    formed &= np.isin(tokens[..., 1], _OPERATORS) & np.isin(tokens[..., 5], (NEWLINE, EOS))
    formed = np.logical_and.accumulate(formed, axis=1)
    return np.where(formed[..., None], steps, 0), formed
