"""Docstrings begin with a verb or a noun (CONTRIBUTING.md, English)."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FRAGMENT = re.compile(r"\s*(Of|That|What|Whether)\b")


def docstrings(source: str) -> Iterator[str]:
    """Every docstring, and every string that follows an attribute."""
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            yield node.value.value


def test_no_docstring_is_a_fragment() -> None:
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    paths = [ROOT / name for name in listed.stdout.split()]
    assert len(paths) > 100
    assert [
        f"{path.relative_to(ROOT)}: {text[:60]}"
        for path in paths
        for text in docstrings(path.read_text(encoding="utf-8"))
        if FRAGMENT.match(text)
    ] == []
