"""Suggest which field an unknown one was meant to be: a misspelling, or a field that belongs elsewhere in the body."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel

MOST = 3
"""Fields that are suggested in place of one."""
ALIKE = 0.7
"""How alike two names must be, from 0 to 1 (difflib's ratio)."""


def suggestions(body: type[BaseModel], path: str) -> list[str]:
    """The paths of `body`'s fields that `path`, which is none of them, may stand for; the likeliest first.

    Beside the field itself before elsewhere: `search.kapa` is `search.kappa`; `tokens` is `search.budget.tokens`.
    """
    parent, _, name = path.rpartition(".")
    known: dict[str, list[str]] = {}
    for field in paths(body):
        known.setdefault(field.rpartition(".")[2], []).append(field)
    beside = {n for n, fields in known.items() if any(f.rpartition(".")[0] == parent for f in fields)}
    if close := get_close_matches(name[:64], beside, n=1, cutoff=ALIKE):
        return [".".join(filter(None, (parent, close[0])))]
    close = get_close_matches(name[:64], known, n=1, cutoff=ALIKE)
    return known[close[0]][:MOST] if close else []


def paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted path of every field, objects and what is in them. Lists are not looked into."""
    for name, field in model.model_fields.items():
        yield prefix + (field.alias or name)
        for kind in (field.annotation, *get_args(field.annotation)):
            if is_model(kind):
                yield from paths(kind, f"{prefix}{name}.")


def is_model(kind: Any) -> bool:
    return inspect.isclass(kind) and issubclass(kind, BaseModel)
