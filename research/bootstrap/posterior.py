"""Which next step solves: the exact distribution over the steps of a random walk, given that it ends at the target.

A random walk (`walks`) takes two of the numbers left and a legal operator, uniformly. With h(S, t) the probability
that a walk from the numbers S ends at t, the walk's next step from S given success at t is drawn with

    p(step | S, t) ∝ p(step | S) · h(S after the step, t)          (Bayes)

so a solved walk is one sample of that distribution. Teaching the policy the whole distribution instead of the
sample takes out the sampling noise, and with it most of the training that a tiny model would need. h is exact:
tabulated for two and three numbers, expanded down to the table for more.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ramify.rewards.countdown import MAX_RESULT
from ramify.rewards.countdown_data import TARGETS

__all__ = ["Steps", "next_steps", "success"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

_VALUES = MAX_RESULT + 1
_K = np.arange(_VALUES, dtype=np.int64)
_TRIPLES_BELOW = _K * (_K + 1) * (_K + 2) // 6
_PAIRS_BELOW = _K * (_K + 1) // 2


@dataclass(frozen=True, slots=True)
class Steps:
    """Every legal or illegal step from N states of n numbers: M = 4·n(n-1)/2 of them, operators + - * / innermost."""

    a: Ints
    """The larger operand [N, M]."""
    b: Ints
    """The smaller one [N, M]."""
    result: Ints
    """[N, M]; 0 if the step is illegal."""
    chance: Floats
    """p(step | S), [N, M]: 0 if illegal, rows sum to 1."""
    left: Ints
    """The numbers after the step [N, M, n - 1], the result last."""


def next_steps(numbers: Ints) -> Steps:
    """Return all steps from states [N, n]."""
    rows, n = numbers.shape
    pairs = list(combinations(range(n), 2))
    first, second = (numbers[:, [pair[i] for pair in pairs]] for i in (0, 1))
    a, b = np.maximum(first, second), np.minimum(first, second)
    result, legal = _apply(a, b)
    chance = legal / legal.sum(-1, keepdims=True) / len(pairs)
    rest = [[k for k in range(n) if k not in pair] for pair in pairs]
    kept = np.repeat(numbers[:, rest], 4, axis=1).reshape(rows, 4 * len(pairs), n - 2)
    flat = result.reshape(rows, -1)
    return Steps(
        a=np.repeat(a, 4, axis=1),
        b=np.repeat(b, 4, axis=1),
        result=flat,
        chance=chance.reshape(rows, -1).astype(np.float32),
        left=np.concatenate([kept, flat[..., None]], axis=-1),
    )


def _apply(a: Ints, b: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """Return results and legality [..., 4] of a + b, a - b, a * b, a / b for a >= b."""
    quotient, remainder = np.divmod(a, np.maximum(b, 1))
    result = np.stack([a + b, a - b, a * b, quotient], axis=-1)
    legal = np.stack(
        [a + b <= MAX_RESULT, np.ones_like(a, dtype=bool), a * b <= MAX_RESULT, (b > 0) & (remainder == 0)],
        axis=-1,
    )
    return np.where(legal, result, 0), legal


def success(numbers: Ints, targets: Ints) -> Floats:
    """Return h, the probability [N] that a random walk from the numbers [N, n] ends at the targets [N]."""
    n = numbers.shape[1]
    if n == 1:
        return np.asarray(numbers[:, 0] == targets, dtype=np.float32)
    if n == 2:
        return _pairs()[numbers[:, 0], numbers[:, 1], targets].astype(np.float32)
    if n == 3:
        return _triples()[_triple_index(numbers), targets].astype(np.float32)
    steps = next_steps(numbers)
    below = success(steps.left.reshape(-1, n - 1), np.repeat(targets, steps.a.shape[1]))
    return np.asarray((steps.chance * below.reshape(steps.chance.shape)).sum(-1))


def _triple_index(numbers: Ints) -> Ints:
    """Return the place of each sorted triple [N, 3] in the table."""
    low, mid, high = np.sort(numbers, axis=1).T
    return np.asarray(_TRIPLES_BELOW[high] + _PAIRS_BELOW[mid] + low)


@cache
def _pairs() -> NDArray[np.float16]:
    """h of two numbers, [200, 200, 101]."""
    x, y = np.meshgrid(_K, _K, indexing="ij")
    result, legal = _apply(np.maximum(x, y), np.minimum(x, y))
    table = np.zeros((_VALUES, _VALUES, TARGETS.stop), dtype=np.float32)
    share = legal / legal.sum(-1, keepdims=True)
    for op in range(4):
        hit = legal[..., op] & (result[..., op] < TARGETS.stop)
        at = np.nonzero(hit)
        table[(*at, result[..., op][hit])] += share[..., op][hit]
    return table.astype(np.float16)


@cache
def _triples() -> NDArray[np.float16]:
    """h of three numbers, [1 353 400, 101] by `_triple_index`; 270 MB, made in half a minute."""
    pairs = _pairs()
    table = np.empty((int(_TRIPLES_BELOW[-1] + _PAIRS_BELOW[-1] + _VALUES), TARGETS.stop), dtype=np.float16)
    for high in range(_VALUES):
        mid, low = np.tril_indices(high + 1)
        numbers = np.stack([low, mid, np.full_like(low, high)], axis=1)
        steps = next_steps(numbers)
        total = np.zeros((len(numbers), TARGETS.stop), dtype=np.float32)
        for i in range(steps.a.shape[1]):
            total += steps.chance[:, i, None] * pairs[steps.left[:, i, 0], steps.left[:, i, 1]]
        start = int(_TRIPLES_BELOW[high])
        table[start : start + len(numbers)] = total
    return table
