"""Training text for the policy: random legal walks over training problems, drawn thousands at a time.

A walk takes two of the remaining numbers and a legal operator, uniformly, until one number is left; that number
is then the target it solves. Walks whose end is outside the targets' range, or whose numbers are not of the
split, are dropped.
"""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ramify.rewards.countdown import MAX_RESULT
from ramify.rewards.countdown_data import COUNTS, NUMBERS, TARGETS, Split, split_of
from research.bootstrap.tokenizer import (
    BOS,
    EOS,
    EQUALS,
    NEWLINE,
    OPERATORS,
    TO,
    first_number,
    later_number,
)

__all__ = ["SplitTable", "Walks", "answer_length", "answer_tokens", "prompt_length", "prompt_tokens"]

Ints = NDArray[np.int64]

SHUFFLED = 0.15
"""The share of prompts whose numbers are in random order."""

_BASE = NUMBERS.stop
_OPERATOR_TOKENS = np.array([OPERATORS[op] for op in "+-*/"], dtype=np.int64)


def prompt_length(count: int) -> int:
    """Return how many tokens the prompt of a problem with ``count`` numbers has."""
    return count + 4


def answer_length(count: int) -> int:
    """Return how many tokens a regular answer to ``count`` numbers has, the end-of-text token included."""
    return 6 * (count - 1)


def prompt_tokens(numbers: Ints, targets: Ints) -> Ints:
    """Return prompts [B, count + 4] for numbers [B, count] and targets [B]."""
    rows = len(numbers)
    return np.column_stack(
        [
            np.full(rows, BOS),
            first_number(numbers[:, 0]),
            later_number(numbers[:, 1:]),
            np.full(rows, TO),
            later_number(targets),
            np.full(rows, NEWLINE),
        ]
    )


@cache
def split_table(count: int, split: Split) -> SplitTable:
    """Return the table of a number count and split, made once a process."""
    return SplitTable(count, split)


class SplitTable:
    """Looks up the split of many multisets of ``count`` numbers at once."""

    def __init__(self, count: int, split: Split) -> None:
        self._member = np.zeros(_BASE**count, dtype=bool)
        for numbers in itertools.combinations_with_replacement(NUMBERS, count):
            self._member[self._code(np.array([numbers]))] = split_of(numbers) == split

    def __call__(self, numbers: Ints) -> NDArray[np.bool_]:
        """Return [B]: whether each row of numbers [B, count] is of the split."""
        return self._member[self._code(numbers)]

    @staticmethod
    def _code(numbers: Ints) -> Ints:
        powers = _BASE ** np.arange(numbers.shape[1])
        return np.asarray((np.sort(numbers, axis=1) * powers).sum(axis=1))


class Walks:
    """An endless stream of solved problems of one number count and split.

    Most prompts name their numbers in ascending order, as the task's prompts do; a share of ``SHUFFLED`` does not,
    so that a prompt typed in another order is understood too.
    """

    def __init__(self, count: int, split: Split, rng: np.random.Generator) -> None:
        self.count = count
        self._rng = rng
        self._in_split = split_table(count, split) if count in COUNTS else None
        self._pool: tuple[Ints, Ints] = self._draw(1)

    def take(self, rows: int) -> tuple[Ints, Ints]:
        """Return numbers [rows, count] and steps [rows, count - 1, (a, op, b, c)]; op counts + - * / from 0."""
        while len(self._pool[0]) < rows:
            numbers, steps = self._draw(20_000)
            self._pool = np.concatenate([self._pool[0], numbers]), np.concatenate([self._pool[1], steps])
        numbers, steps = self._pool
        self._pool = numbers[rows:], steps[rows:]
        return numbers[:rows], steps[:rows]

    def _draw(self, rows: int) -> tuple[Ints, Ints]:
        """Return those of ``rows`` walks that are of the split and end in the targets' range."""
        numbers = self._rng.integers(NUMBERS.start, NUMBERS.stop, size=(rows, self.count))
        numbers = self._widen(numbers) if self._in_split is None else numbers[self._in_split(numbers)]
        steps = _walk(numbers, self._rng)
        kept = (steps[:, -1, 3] >= TARGETS.start) & (steps[:, -1, 3] < TARGETS.stop)
        shuffled = self._rng.random((len(numbers), 1)) < SHUFFLED
        return np.where(shuffled, numbers, np.sort(numbers, axis=1))[kept], steps[kept]

    def _widen(self, numbers: Ints) -> Ints:
        """Return numbers with half of them replaced by ones from 0 to 199, small ones more often.

        Two or three numbers stand for the end of a longer problem, at which results of earlier steps are left.
        """
        wide = np.exp(self._rng.random(numbers.shape) * np.log(MAX_RESULT + 1)).astype(np.int64) - 1
        wide = np.where(self._rng.random(numbers.shape) < 0.02, 0, np.clip(wide + 1, 0, MAX_RESULT))
        return np.where(self._rng.random(numbers.shape) < 0.5, wide, numbers)


def _walk(numbers: Ints, rng: np.random.Generator) -> Ints:
    left = numbers.copy()
    rows, count = left.shape
    at = np.arange(rows)
    steps = []
    for size in range(count, 1, -1):
        i = rng.integers(0, size, rows)
        j = (i + rng.integers(1, size, rows)) % size
        a, b = np.maximum(left[at, i], left[at, j]), np.minimum(left[at, i], left[at, j])
        op = _legal_operator(a, b, rng)
        quotient = a // np.maximum(b, 1)
        c = np.choose(op, [a + b, a - b, a * b, quotient])
        steps.append(np.stack([a, op, b, c], axis=1))
        left[at, i] = c
        # the last place goes: j takes what it holds, which is the result if i is that place
        left[at, j] = left[:, size - 1]
    return np.stack(steps, axis=1)


def _legal_operator(a: Ints, b: Ints, rng: np.random.Generator) -> Ints:
    """Return a legal operator 0..3 (+ - * /) for each pair, uniformly."""
    divides = (b > 0) & (a % np.maximum(b, 1) == 0)
    legal = np.stack([a + b <= MAX_RESULT, np.ones_like(divides), a * b <= MAX_RESULT, divides], axis=1)
    return np.asarray(np.where(legal, rng.random(legal.shape), -1.0).argmax(axis=1))


def answer_tokens(steps: Ints) -> Ints:
    """Return answers [B, 6 * lines] of steps [B, lines, (a, op, b, c)], ending in the end-of-text token."""
    rows, lines, _ = steps.shape
    tokens = np.empty((rows, lines, 6), dtype=np.int64)
    tokens[..., 0] = first_number(steps[..., 0])
    tokens[..., 1] = _OPERATOR_TOKENS[steps[..., 1]]
    tokens[..., 2] = later_number(steps[..., 2])
    tokens[..., 3] = EQUALS
    tokens[..., 4] = later_number(steps[..., 3])
    tokens[..., 5] = NEWLINE
    tokens[:, -1, 5] = EOS
    return tokens.reshape(rows, lines * 6)
