"""The package's docstring is a map: every module stands in it, after those that it imports."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import ramify.rewards

FOLDER = Path(next(iter(ramify.rewards.__path__)))
LISTED = [
    name
    for line in (ramify.rewards.__doc__ or "").splitlines()
    if re.match(r"`\w+`[,:]", line)
    for name in re.findall(r"`(\w+)`", re.split(r"`: ", line)[0] + "`")
]


def imported_at_load(module: str) -> set[str]:
    tree = ast.parse((FOLDER / f"{module}.py").read_text())
    names = [
        f"{node.module}.{alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    return {name.split(".")[2] for name in names if name.startswith("ramify.rewards.")}


def test_every_module_is_listed_once() -> None:
    assert sorted(LISTED) == sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


def test_a_module_stands_below_those_that_it_imports() -> None:
    for i, module in enumerate(LISTED):
        assert imported_at_load(module) <= set(LISTED[:i]), module
