"""docs/search.md says of every parameter what it may be, its default, and which algorithms have it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from ramify.search.params import BOUNDS, CHOICES, DEFAULTS, FIELDS
from ramify.search.records import Action, BudgetLimits, SearchParams

PAGE = (Path(__file__).parents[3] / "docs" / "search.md").read_text()


def parameters() -> Iterator[tuple[str, object]]:
    """Path below `search` and default."""
    for field in fields(SearchParams):
        if field.name == "action":
            yield from ((f"action.{f.name}", getattr(Action(), f.name)) for f in fields(Action))
        elif field.name == "budget":
            yield from ((f"budget.{f.name}", getattr(BudgetLimits(), f.name)) for f in fields(BudgetLimits))
        else:
            yield field.name, getattr(SearchParams(), field.name)


def values(name: str) -> str:
    if name in CHOICES:
        return ", ".join(f"`{choice}`" for choice in CHOICES[name])
    if name in BOUNDS:
        low, high = BOUNDS[name]
        return f"{low:g} to {high:,.10g}"
    return {"widen": "true, false", "abandon": "true, false", "action.stop": "1 to 8 strings"}[name]


DERIVED = {
    "max_depth": "as deep as answers can be",
    "early_stop": "`off`; `grader: verifier` `verified`",
    "budget.simulations": "`64`; none beside another limit",
}
"""Defaults that follow from other parameters."""


def default(name: str, value: object) -> str:
    if name in DERIVED:
        return DERIVED[name]
    own = [
        f"`{a}` {shown(given[name])}" for a, given in DEFAULTS.items() if name in given and name in FIELDS[a]
    ]
    return "; ".join([shown(value), *own])


def shown(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return f"`{json.dumps(value)}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{str(value).lower()}`"


def algorithms(name: str) -> str:
    having = [a for a, names in FIELDS.items() if name.partition(".")[0] in names]
    lacking = [a for a in FIELDS if a not in having]
    if not lacking:
        return "all"
    listed = having if len(having) <= len(lacking) else lacking
    return ("" if listed is having else "not ") + ", ".join(f"`{a}`" for a in listed)


@pytest.mark.parametrize(("name", "value"), list(parameters()), ids=lambda v: v if isinstance(v, str) else "")
def test_every_search_parameter_is_in_the_search_guide(name: str, value: object) -> None:
    row = f"| `{name}` | {values(name)} | {default(name, value)} | {algorithms(name)} | "
    assert row in PAGE, f"docs/search.md has no row that begins with\n{row}"
