"""Countdown problems: the split, the generator, and an exact solver.

Everything is deterministic given its seed. The split is a function of the sorted multiset of numbers, so a
reordering or another target of a training problem never appears in dev or test.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from itertools import islice
from typing import Literal

from ramify.rewards.countdown import MAX_RESULT, Operation, Operator, Problem, apply

Split = Literal["train", "dev", "test"]
SPLITS: dict[str, Split] = {"train": "train", "dev": "dev", "test": "test"}

COUNTS = (4, 5, 6)
"""Numbers of a generated problem."""
NUMBERS = range(1, 14)
"""The values that the given numbers are drawn from."""
TARGETS = range(1, 101)
"""The values that a target may have."""

_OPERATORS: tuple[Operator, ...] = ("+", "-", "*", "/")


def split_of(numbers: Sequence[int]) -> Split:
    """Return the split of a multiset of numbers: sha256 of "3 5 7 8" (sorted) mod 10; 0 test, 1 dev, else train."""
    digest = hashlib.sha256(" ".join(map(str, sorted(numbers))).encode()).hexdigest()
    return {0: "test", 1: "dev"}.get(int(digest, 16) % 10, "train")  # type: ignore[return-value]


class Solver:
    """The exact solver of one multiset of numbers: which values it reaches, and random solutions.

    Works on subsets (bit masks over positions): a value is reachable from a subset if the subset splits in two
    whose reachable values combine to it. Subsets are worked out when first asked for.
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = tuple(numbers)
        self._values: dict[int, frozenset[int]] = {1 << i: frozenset((n,)) for i, n in enumerate(numbers)}

    @cached_property
    def all(self) -> int:
        """The mask of all numbers."""
        return (1 << len(self._numbers)) - 1

    def values(self, mask: int) -> frozenset[int]:
        """Return every value in 0..199 that uses each number of `mask` exactly once."""
        known = self._values.get(mask)
        if known is None:
            reached: set[int] = set()
            for left, right in _splits(mask):
                reached.update(_combinations(self.values(left), self.values(right)))
            known = self._values[mask] = frozenset(reached)
        return known

    def solve(self, target: int, rng: random.Random | None = None) -> list[Operation] | None:
        """Return the steps of one solution, or None if there is none; with `rng` a random one."""
        return self._trace(self.all, target, rng)

    def _trace(self, mask: int, target: int, rng: random.Random | None) -> list[Operation] | None:
        if mask.bit_count() == 1:
            return [] if target in self.values(mask) else None
        splits = sorted(_splits(mask), key=lambda s: max(s[0].bit_count(), s[1].bit_count()))
        if rng is not None:
            rng.shuffle(splits)
        for left, right in splits:
            for step in _decompositions(target, rng):
                for first, second in ((left, right), (right, left)):
                    if step.a in self.values(first) and step.b in self.values(second):
                        before = self._trace(first, step.a, rng)
                        after = self._trace(second, step.b, rng)
                        assert before is not None
                        assert after is not None
                        return [*before, *after, step]
        return None


def _splits(mask: int) -> Iterator[tuple[int, int]]:
    """Yield every way to part `mask` in two non-empty parts, each once."""
    part = (mask - 1) & mask
    while part:
        if part > mask ^ part:
            yield part, mask ^ part
        part = (part - 1) & mask


def _combinations(left: frozenset[int], right: frozenset[int]) -> Iterator[int]:
    for x in left:
        for y in right:
            a, b = (x, y) if x >= y else (y, x)
            yield a - b
            if a + b <= MAX_RESULT:
                yield a + b
            if a * b <= MAX_RESULT:
                yield a * b
            if b and a % b == 0:
                yield a // b


def _decompositions(target: int, rng: random.Random | None) -> list[Operation]:
    """Return every legal step whose result is `target`."""
    steps = _steps_by_result()[target]
    return steps if rng is None else rng.sample(steps, len(steps))


@cache
def _steps_by_result() -> dict[int, list[Operation]]:
    """Return all legal steps by their results."""
    steps: dict[int, list[Operation]] = {result: [] for result in range(MAX_RESULT + 1)}
    for a in range(MAX_RESULT + 1):
        for b in range(a + 1):
            for op in _OPERATORS:
                result = apply(a, op, b)
                if result is not None:
                    steps[result].append(Operation(a, op, b, result))
    return steps


def solve(problem: Problem, rng: random.Random | None = None) -> str | None:
    """Return the text of one right answer, a random one with `rng`, or None if the problem has none."""
    steps = Solver(problem["numbers"]).solve(problem["target"], rng)
    return None if steps is None else "\n".join(map(str, steps))


def walk(numbers: Sequence[int], rng: random.Random) -> list[Operation]:
    """Return a random legal way to use up `numbers`: two of them and a legal operator, drawn uniformly, a step."""
    left, steps = list(numbers), []
    while len(left) > 1:
        i, j = rng.sample(range(len(left)), 2)
        a, b = max(left[i], left[j]), min(left[i], left[j])
        op, c = rng.choice([(op, c) for op in _OPERATORS if (c := apply(a, op, b)) is not None])
        steps.append(Operation(a, op, b, c))
        left = [n for k, n in enumerate(left) if k not in (i, j)] + [c]
    return steps


def problems(split: Split, count: int, seed: int, counts: Sequence[int] = COUNTS) -> list[Problem]:
    """Return the first `count` problems of `generate`."""
    return list(islice(generate(split, seed, counts), count))


def generate(split: Split, seed: int, counts: Sequence[int] = COUNTS) -> Iterator[Problem]:
    """Yield distinct solvable problems of a split without end, the same for the same arguments.

    Numbers are drawn uniformly; the target is the end of a random legal walk (`walk`) over them, so there is a
    solution. A draw outside the split or the targets' range, or seen before, is dropped. The number counts take
    turns, so they are equally frequent. No two problems share multiset and target.
    """
    rng = random.Random(f"countdown {split} {seed} {list(counts)}")
    seen: set[tuple[tuple[int, ...], int]] = set()
    while True:
        numbers = sorted(rng.choice(NUMBERS) for _ in range(counts[len(seen) % len(counts)]))
        if split_of(numbers) != split:
            continue
        target = walk(numbers, rng)[-1].c
        key = (tuple(numbers), target)
        if target in TARGETS and key not in seen:
            seen.add(key)
            yield {"numbers": numbers, "target": target}
