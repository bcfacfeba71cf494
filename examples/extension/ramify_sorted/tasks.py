"""The task `sorted`: numbers in ascending order."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from ramify.rewards import Example, Verdict, Verifier


class Sorted(Verifier):
    """Right is the list of `numbers`, ascending, on the answer's last line."""

    splits: ClassVar[tuple[str, ...]] = ("train", "dev", "test")

    numbers: Annotated[
        tuple[Annotated[int, Field(ge=0, le=999)], ...],
        Field(min_length=1, max_length=32),
    ]

    def final(self, text: str) -> str | None:
        """Return the numbers of the last line, one blank apart; None if it holds anything else."""
        words = text.strip().rpartition("\n")[2].split()
        return " ".join(words) if words and all(word.isdecimal() for word in words) else None

    def grade(self, text: str) -> Verdict:
        """Give 1 for the whole list in order."""
        right = " ".join(map(str, sorted(self.numbers)))
        return Verdict(1.0, "sorted") if self.final(text) == right else Verdict(0.0, f"not {right}")

    @classmethod
    def examples(cls, split: str, seed: int, options: Mapping[str, str]) -> Iterator[Example]:
        """Draw lists without end, of 4 numbers or of `?size=N`; their sum modulo 3 says to which split they belong."""
        size = int(options.get("size", "4"))
        rng = random.Random(f"{split} {seed} {size}")
        while True:
            numbers = [rng.randrange(100) for _ in range(size)]
            if sum(numbers) % 3 == cls.splits.index(split):
                prompt = f"Sort: {' '.join(map(str, numbers))}\n"
                yield Example(prompt=prompt, problem={"numbers": numbers}, group=f"{size} numbers")
