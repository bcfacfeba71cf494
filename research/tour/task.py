"""The task `tour`: walk a grid of 6 by 6 cells so that every free cell is visited exactly once.

The prompt names the blocked cells in order and the start, `a3 c1 e5 from b2`; the answer is one cell a line, each a
neighbour (up, down, left or right) of the one before. A grid has 6 to 14 blocked cells, so a tour has 21 to 29
steps. A wrong turn may show at once or only at the end, when a cell cannot be reached any more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from ramify.rewards import Example, Verdict, Verifier
from research.tour.grids import CELLS, NEIGHBOURS, Grid, Split, draw

SPLITS: tuple[Split, ...] = ("train", "dev", "test")
Cell = Annotated[str, Field(pattern=r"^[a-f][1-6]$")]
_PROMPT = re.compile(r"((?:[a-f][1-6] )*)from ([a-f][1-6])\n?")


class Tour(Verifier):
    """Right is a walk from `start` that visits every cell that is not `blocked` once."""

    in_process: ClassVar[bool] = True
    splits: ClassVar[tuple[str, ...]] = SPLITS

    blocked: Annotated[tuple[Cell, ...], Field(max_length=len(CELLS) - 1)]
    start: Cell

    @model_validator(mode="after")
    def _start_is_free(self) -> Tour:
        if self.start in self.blocked or len(set(self.blocked)) < len(self.blocked):
            raise ValueError("'start' must be free, and 'blocked' must name each cell once")
        return self

    def final(self, text: str) -> str | None:
        """Return the cells of the walk, one blank apart; None if a line is no cell."""
        words = text.split("\n")
        return " ".join(words) if all(word in CELLS for word in words) else None

    def grade(self, text: str) -> Verdict:
        """Give 1 for a whole tour; the reason names the first step that is wrong."""
        left, at = set(CELLS) - {*self.blocked, self.start}, CELLS[self.start]
        for step, word in enumerate(text.split("\n") if text else [], 1):
            if word not in CELLS:
                return Verdict(0.0, f"step {step} is no cell")
            if CELLS[word] not in NEIGHBOURS[at]:
                return Verdict(0.0, f"step {step}: {word} is no neighbour")
            if word not in left:
                return Verdict(0.0, f"step {step}: {word} is blocked or was visited")
            left.remove(word)
            at = CELLS[word]
        return Verdict(0.0, f"{len(left)} cells are not visited") if left else Verdict(1.0, "a tour")

    @classmethod
    def read_prompt(cls, prompt: str) -> tuple[Mapping[str, Any], str] | None:
        """Return the grid that a prompt states."""
        match = _PROMPT.fullmatch(prompt)
        if match is None or match[2] in match[1].split():
            return None
        return {"blocked": match[1].split(), "start": match[2]}, prompt.rstrip("\n") + "\n"

    @classmethod
    def examples(cls, split: str, seed: int, options: Mapping[str, str]) -> Iterator[Example]:
        """Draw grids without end, each of which has a tour; `?steps=N` sets the length of the tours."""
        if split not in SPLITS:
            return super().examples(split, seed, options)
        if unknown := options.keys() - {"steps"}:
            raise ValueError(f"tour has the option 'steps', not {sorted(unknown)}")
        steps = int(options["steps"]) if "steps" in options else None
        if steps is not None and not 21 <= steps <= 29:
            raise ValueError(f"'steps' must be from 21 to 29, not {steps}")
        return _examples(split, seed, steps)


def _examples(split: Split, seed: int, steps: int | None) -> Iterator[Example]:
    grids = (grid for grid in draw(split, seed) if steps is None or grid.steps == steps)
    for grid in grids:
        yield Example(prompt=grid.prompt, problem=grid.problem, group=f"{grid.steps} steps")


def some(split: Split, seed: int, count: int) -> list[Grid]:
    """Return the first grids of a split, in the order in which `ramify eval --data tour:SPLIT` asks them."""
    return list(islice(draw(split, seed), count))
