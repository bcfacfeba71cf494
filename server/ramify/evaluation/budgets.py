"""Budgets of an evaluation: generated tokens, or seconds on the clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from ramify.search.params import bounds

Unit = Literal["tokens", "seconds"]
UNITS: tuple[Unit, ...] = get_args(Unit)
"""In the order in which they are reported."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that one search may spend. Sorts by unit, then by amount."""

    unit: Unit
    amount: float
    """Generated tokens, a whole number; or seconds from the search's own start."""

    def limits(self) -> dict[str, float]:
        """Return the `budget` of a request."""
        return {self.unit: self.amount}

    def __lt__(self, other: Budget) -> bool:
        return (UNITS.index(self.unit), self.amount) < (UNITS.index(other.unit), other.amount)

    def __str__(self) -> str:
        """Write it as the flag `--budgets` reads it: `300`, `2s`."""
        return f"{self.amount:g}s" if self.unit == "seconds" else str(self.amount)

    @property
    def label(self) -> str:
        """The budget with its unit, for a table's head."""
        return f"{self.amount:g} s" if self.unit == "seconds" else f"{self.amount} tokens"


def parse_budgets(names: Iterable[str]) -> list[Budget]:
    """Read budgets such as `300` and `2s`: each once, tokens first, the smallest of each unit first.

    Raises `ValueError` for what is no budget, and for one that no search may have.
    """
    found = sorted({_parse(name) for name in names})
    if not found:
        raise ValueError("names no budget: write tokens as 300, seconds as 2s")
    return found


def _parse(name: str) -> Budget:
    try:
        budget = Budget("seconds", float(name[:-1])) if name.endswith("s") else Budget("tokens", int(name))
    except ValueError:
        raise ValueError(f"{name!r} is no budget: write tokens as 300, seconds as 2s or 0.5s") from None
    low, high = bounds(f"budget.{budget.unit}") or (0, 0)
    if not low <= budget.amount <= high:
        raise ValueError(f"{name!r}: {budget.unit} go from {low:g} to {high:g}")
    return budget
