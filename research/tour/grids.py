"""Grids of 6 by 6 cells, some blocked, and random tours of them."""

from __future__ import annotations

import hashlib
import random
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Split = Literal["train", "dev", "test"]
SIZE = 6
NAMES = [f"{column}{row}" for row in range(1, SIZE + 1) for column in "abcdef"]
CELLS = {name: cell for cell, name in enumerate(NAMES)}
"""Cell numbers, row by row, by name."""
NEIGHBOURS: tuple[tuple[int, ...], ...] = tuple(
    tuple(
        other
        for other in range(SIZE * SIZE)
        if abs(cell % SIZE - other % SIZE) + abs(cell // SIZE - other // SIZE) == 1
    )
    for cell in range(SIZE * SIZE)
)
MOST_VISITS = 3_000
"""Cells that the search for a tour may step on before a grid counts as one without a tour."""


@dataclass(frozen=True, slots=True)
class Grid:
    """One problem, and a tour of it."""

    blocked: tuple[int, ...]
    """Ascending."""
    tour: tuple[int, ...]
    """From the start on, which is its first cell."""

    @property
    def steps(self) -> int:
        return len(self.tour) - 1

    @property
    def prompt(self) -> str:
        return f"{''.join(f'{NAMES[cell]} ' for cell in self.blocked)}from {NAMES[self.tour[0]]}\n"

    @property
    def problem(self) -> dict[str, Any]:
        return {"blocked": [NAMES[cell] for cell in self.blocked], "start": NAMES[self.tour[0]]}


def draw(split: Split, seed: int) -> Iterator[Grid]:
    """Draw grids of a split without end, each with a tour found by a random search."""
    rng = random.Random(f"{split} {seed}")
    while True:
        blocked = tuple(sorted(rng.sample(range(SIZE * SIZE), rng.randint(6, 14))))
        free = [cell for cell in range(SIZE * SIZE) if cell not in blocked]
        start = rng.choice(free)
        if split_of(blocked, start) == split and (tour := find_tour(free, start, rng)):
            yield Grid(blocked, tour)


def split_of(blocked: Sequence[int], start: int) -> Split:
    """Return the split of a grid, by a hash: 90 % train, 5 % dev, 5 % test."""
    digest = hashlib.sha256(f"{list(blocked)} {start}".encode()).digest()[0]
    return "dev" if digest < 13 else "test" if digest < 26 else "train"


def find_tour(free: Sequence[int], start: int, rng: random.Random) -> tuple[int, ...] | None:
    """Return a random tour of the free cells from `start`; None if the search gives up."""
    # A walk changes colour with each step, so one colour has at most one cell more, and that is the start's.
    odd = sum((cell % SIZE + cell // SIZE) % 2 for cell in free)
    mine = odd if (start % SIZE + start // SIZE) % 2 else len(free) - odd
    if mine - (len(free) - mine) not in (0, 1):
        return None
    left, path, visits = set(free) - {start}, [start], 0

    def go() -> bool:
        nonlocal visits
        visits += 1
        if not left:
            return True
        if visits > MOST_VISITS or not _reachable(path[-1], left):
            return False
        ways = [cell for cell in NEIGHBOURS[path[-1]] if cell in left]
        rng.shuffle(ways)
        for cell in ways:
            left.remove(cell)
            path.append(cell)
            if go():
                return True
            left.add(path.pop())
        return False

    return tuple(path) if go() else None


def lost_at(free: Sequence[int], start: int, walk: Sequence[int]) -> int:
    """Return the first step of a walk, counted from 1, that leaves no tour of the free cells; one more than its
    length if a tour is left to its end. A search for a tour that gives up counts as none."""
    left, at, legal = set(free) - {start}, start, 0
    for cell in walk:
        if cell not in left or cell not in NEIGHBOURS[at]:
            break
        left.remove(cell)
        at, legal = cell, legal + 1
    rng = random.Random(0)

    def is_lost(step: int) -> bool:
        at = walk[step - 1]
        rest = set(free) - {start, *walk[: step - 1]}
        return find_tour(sorted(rest), at, rng) is None

    # what is lost stays lost, so the steps can be halved
    return 1 + bisect_left(range(1, legal + 1), True, key=is_lost)


def _reachable(at: int, left: set[int]) -> bool:
    """Return whether every cell that is left can be reached, and at most one of them is a dead end away from `at`."""
    seen, stack = {at}, [at]
    while stack:
        new = [cell for cell in NEIGHBOURS[stack.pop()] if cell in left and cell not in seen]
        seen.update(new)
        stack += new
    if len(seen) <= len(left):
        return False
    ends = sum(
        sum(other in left for other in NEIGHBOURS[cell]) < 2 and cell not in NEIGHBOURS[at] for cell in left
    )
    return ends <= 1
