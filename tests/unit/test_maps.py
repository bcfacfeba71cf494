"""The table in each package's docstring names every module of it, after those that it imports."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

PACKAGES = [
    "ramify.bench",
    "ramify.cluster",
    "ramify.engines",
    "ramify.engines.vllm",
    "ramify.evaluation",
    "ramify.fleet",
    "ramify.sandbox",
    "ramify.service",
    "ramify.settings",
    "ramify.treelog",
    "ramify.tuning",
    "ramify.weights",
]


def listed(package: str) -> list[str]:
    return re.findall(r"^\| `(\w+)` \|", importlib.import_module(package).__doc__ or "", re.MULTILINE)


def imported_at_load(package: str, module: str) -> set[str]:
    """The package's own modules that one of them imports, type checking aside."""
    home = Path(next(iter(importlib.import_module(package).__path__)))
    path = home / module / "__init__.py" if (home / module).is_dir() else home / f"{module}.py"
    names = [
        node.module or "" for node in ast.parse(path.read_text()).body if isinstance(node, ast.ImportFrom)
    ]
    return {
        name.removeprefix(f"{package}.").split(".")[0] for name in names if name.startswith(f"{package}.")
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_the_map_of_a_package_names_its_modules(package: str) -> None:
    path = importlib.import_module(package).__path__
    assert sorted(listed(package)) == sorted(module.name for module in pkgutil.iter_modules(path))


@pytest.mark.parametrize("package", PACKAGES)
def test_a_module_stands_below_those_that_it_imports(package: str) -> None:
    names = listed(package)
    for i, module in enumerate(names):
        assert imported_at_load(package, module) <= set(names[:i]), module
