"""Countdown as a chat model is asked it, with worked answers: `python -m research.real.countdown`.

    Make 24 from 3, 5, 7 and 8.

    8 - 5 = 3
    7 - 3 = 4
    ...

Problems, splits and the verifier are those of the task `countdown`, which is reasoning-gym's too; a worked answer is a
random one of its solutions.
"""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from ramify.rewards.countdown import Problem
from ramify.rewards.countdown_data import SPLITS, generate, solve
from research.real.rows import Row, asked, worked, write


def question(problem: Problem) -> str:
    """Return a problem in words."""
    *others, last = map(str, problem["numbers"])
    return f"Make {problem['target']} from {', '.join(others)} and {last}."


def chat(problem: Problem, rng: random.Random) -> Row:
    """Return a chat that solves a problem."""
    answer = solve(problem, rng)
    assert answer is not None, "a generated problem has a solution"
    return worked(question(problem), answer)


def main(
    out: Annotated[Path, typer.Option(help="Folder of the files.")] = Path("runs/real"),
    train: int = 4_000,
    dev: int = 500,
    test: int = 1_000,
    examples: Annotated[int, typer.Option(help="Worked answers to problems of the train split.")] = 12_000,
    numbers: Annotated[str, typer.Option(help="How many numbers a problem has, each in turn.")] = "4",
    taught: Annotated[str, typer.Option(help="The same for worked answers.")] = "4",
    seed: int = 0,
) -> None:
    """Write train.jsonl, dev.jsonl, test.jsonl and, with worked answers, worked.jsonl."""
    for split, count in {"train": train, "dev": dev, "test": test}.items():
        found = islice(generate(SPLITS[split], seed, _counts(numbers)), count)
        rows = [
            asked(question(p), "countdown", p, f"{split}-{i}", f"{len(p['numbers'])} numbers")
            for i, p in enumerate(found)
        ]
        write(out / f"{split}.jsonl", rows)
    rng = random.Random(seed)
    solved = [chat(p, rng) for p in islice(generate("train", seed, _counts(taught)), examples)]
    write(out / "worked.jsonl", solved)


def _counts(numbers: str) -> list[int]:
    return [int(number) for number in numbers.split(",")]


if __name__ == "__main__":
    typer.run(main)
