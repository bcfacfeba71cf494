"""Problems of the language: what a function gives for 0 to 7, and tests of it that are not shown.

python -m research.programs.problems --split test --count 300 --out runs/programs/test.jsonl

writes rows of the task `code`, as `ramify eval --data`, `ramify-trainer` and POST /v1/search take them.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

import typer

from ramify import files
from research.programs.language import HEAD, HIDDEN, PUBLIC, Program, behaviour, draw, every, results

Split = Literal["train", "dev", "test"]
FEWEST_RESULTS = 4
"""Different results that a function must have."""
LINES = 3
"""Lines of a problem's program."""
MOST_DRAWN = 1_000
"""Draws after which a split counts as having no further problem."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem, and the program that it was made of."""

    program: Program
    results: tuple[int, ...]
    """Results of the function, one for each input."""

    @property
    def prompt(self) -> str:
        return f"f({PUBLIC[0]}..{PUBLIC[-1]}): {' '.join(str(self.results[x]) for x in PUBLIC)}\n{HEAD}"

    @property
    def row(self) -> dict[str, Any]:
        """The problem as a row of a data set of the task `code`."""
        tests = {"public": self._tests(PUBLIC), "hidden": self._tests(HIDDEN)}
        return {
            "prompt": self.prompt,
            "task": "code",
            "problem": {**tests, "function": "f", "prelude": HEAD},
        }

    def _tests(self, inputs: range) -> list[dict[str, Any]]:
        return [{"input": [x], "output": self.results[x]} for x in inputs]


def draw_problems(split: Split, lines: int, seed: int) -> Iterator[Problem]:
    """Draw problems of a split without end, whose public tests no program of fewer lines passes."""
    rng = random.Random(f"{split} {lines} {seed}")
    simpler = {behaving[: len(PUBLIC)] for behaving in every(lines - 1)}
    while True:
        program = draw(lines, rng)
        behaving = behaviour(program)
        if behaving is None or split_of(behaving) != split or behaving[: len(PUBLIC)] in simpler:
            continue
        if len(set(behaving)) >= FEWEST_RESULTS:
            yield Problem(program, tuple(results(behaving)))


def split_of(behaving: bytes) -> Split:
    """Return the split of a behaviour, by its hash: 90 % train, 5 % dev, 5 % test."""
    digest = hashlib.sha256(behaving).digest()[0]
    return "dev" if digest < 13 else "test" if digest < 26 else "train"


def problems(split: Split, count: int, seed: int) -> list[Problem]:
    """Return problems of three lines; no two functions of them behave alike.

    Raises `ValueError` if `MOST_DRAWN` in a row are known already.
    """
    source, made = draw_problems(split, LINES, seed), dict[tuple[int, ...], Problem]()
    while len(made) < count:
        problem = next((p for p in islice(source, MOST_DRAWN) if p.results not in made), None)
        if problem is None:
            raise ValueError(f"the split {split!r} has no {count} problems: {len(made)} were found")
        made[problem.results] = problem
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
