"""The glossary of docs/architecture.md names classes that exist."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text(encoding="utf-8")
ROWS = re.findall(
    r"^\| ([\w ]+) \| .+ \| `(ramify[\w.]+)` \|$", PAGE.partition("\n## Glossary\n")[2], re.MULTILINE
)


def test_the_glossary_is_in_alphabetical_order() -> None:
    terms = [term for term, _ in ROWS]
    assert len(terms) > 20
    assert terms == sorted(set(terms))


@pytest.mark.parametrize(("term", "home"), ROWS)
def test_every_term_lives_where_the_glossary_says(term: str, home: str) -> None:
    thing = pkgutil.resolve_name(home)
    assert f"{thing.__module__}.{thing.__qualname__}" == home, term
