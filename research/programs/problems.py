"""Problems of the language: what a function does on a few inputs, and tests of it that are not shown.

python -m research.programs.problems --split test --count 300 --out runs/programs/test.jsonl

writes rows of the task `code`, as `ramify eval --data`, `ramify-trainer` and POST /v1/search take them.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

import numpy as np
import typer
from numpy.typing import NDArray

from ramify import files
from research.programs.language import GRID, HEAD, Program, behaviour, draw, every, results

Split = Literal["train", "dev", "test"]
PUBLIC, HIDDEN = 8, 12
"""Tests of a problem: those that its prompt shows, and those that decide."""
FEWEST_RESULTS = 4
"""Different results that a function must have on the grid."""
MIX = (2, 3, 3, 3)
"""Lines of the programs that problems are made of, in turn."""
MOST_DRAWN = 1_000
"""Functions that are drawn for a problem before none is left."""
TRIES = 20
"""Choices of tests before a function is given up whose public tests a shorter program would pass."""


@dataclass(frozen=True, slots=True)
class Function:
    """A program, and what it does: its results on the grid."""

    program: Program
    results: tuple[int, ...]

    def __call__(self, x: int, y: int) -> int:
        """Return the result for an input on the grid."""
        return self.results[GRID.index((x, y))]


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem, and the program that it was made of."""

    function: Function
    public: tuple[tuple[int, int], ...]
    """Inputs of the tests that the prompt shows, ascending."""
    hidden: tuple[tuple[int, int], ...]

    @property
    def prompt(self) -> str:
        return "".join(f"{x} {y} -> {self.function(x, y)}\n" for x, y in self.public) + HEAD

    @property
    def row(self) -> dict[str, Any]:
        """The problem as a row of a data set of the task `code`."""
        tests = {"public": self._tests(self.public), "hidden": self._tests(self.hidden)}
        return {
            "prompt": self.prompt,
            "task": "code",
            "problem": {**tests, "function": "f", "prelude": HEAD},
            "group": f"{len(self.function.program)} lines",
        }

    def _tests(self, inputs: tuple[tuple[int, int], ...]) -> list[dict[str, Any]]:
        return [{"input": [x, y], "output": self.function(x, y)} for x, y in inputs]


def functions(split: Split, lines: int, seed: int) -> Iterator[Function]:
    """Draw functions of a split without end, none of which fewer lines could compute."""
    rng = random.Random(f"{split} {lines} {seed}")
    simpler = every(lines - 1)
    while True:
        program = draw(lines, rng)
        behaving = behaviour(program)
        if behaving is None or split_of(behaving) != split or behaving in simpler:
            continue
        if len(set(behaving)) >= FEWEST_RESULTS:
            yield Function(program, tuple(results(behaving)))


def split_of(behaving: bytes) -> Split:
    """Return the split of a behaviour, by its hash: 90 % train, 5 % dev, 5 % test."""
    digest = hashlib.sha256(behaving).digest()[0]
    return "dev" if digest < 13 else "test" if digest < 26 else "train"


def posed(function: Function, rng: random.Random) -> Problem | None:
    """Make a problem of a function: choose tests, such that no program of fewer lines passes the public ones.

    None if no such choice was found.
    """
    simpler = _simpler(len(function.program) - 1)
    own = np.array(function.results, np.int8)
    for _ in range(TRIES):
        places = rng.sample(range(len(GRID)), PUBLIC + HIDDEN)
        shown = sorted(places[:PUBLIC])
        if not (simpler[:, shown] == own[shown]).all(axis=1).any():
            public, hidden = (tuple(GRID[i] for i in part) for part in (shown, places[PUBLIC:]))
            return Problem(function, public, hidden)
    return None


@cache
def _simpler(lines: int) -> NDArray[np.int8]:
    """Return the results [N, 100] of every function of at most so many lines."""
    return np.array([np.frombuffer(behaving, np.int8) for behaving in sorted(every(lines))])


def problems(split: Split, count: int, seed: int) -> list[Problem]:
    """Return problems of as many lines as `MIX` says, in turn; no two functions of them behave alike.

    Raises `ValueError` if the split has not so many: dev and test have about a hundred functions of two lines each.
    """
    rng = random.Random(f"tests {split} {seed}")
    sources = [functions(split, n, seed) for n in MIX]
    made: dict[tuple[int, ...], Problem] = {}
    for source in islice(cycle(sources), count):
        problem = next(
            (p for f in islice(source, MOST_DRAWN) if f.results not in made and (p := posed(f, rng))), None
        )
        if problem is None:
            raise ValueError(f"the split {split!r} has no {count} problems: {len(made)} were found")
        made[problem.function.results] = problem
    return list(made.values())


def main(
    split: Annotated[str, typer.Option(help=f"One of {', '.join(get_args(Split))}.")],
    out: Annotated[Path, typer.Option(help="The file.")],
    count: int = 300,
    seed: int = 0,
) -> None:
    """Write problems as a data set of the task `code`."""
    if split not in get_args(Split):
        raise typer.BadParameter(f"there are {', '.join(get_args(Split))}", param_hint="--split")
    rows = (problem.row for problem in problems(cast(Split, split), count, seed))
    named = ({**row, "id": f"programs/{split}/{seed}/{i}"} for i, row in enumerate(rows))
    out.parent.mkdir(parents=True, exist_ok=True)
    files.replace(out, "".join(f"{json.dumps(row)}\n" for row in named).encode())


if __name__ == "__main__":
    typer.run(main)
