"""The table in each package's docstring names every module of it, and no other."""

from __future__ import annotations

import importlib
import pkgutil
import re

import pytest

PACKAGES = [
    "ramify_trainer",
    "ramify_trainer.gate",
    "ramify_trainer.learning",
    "ramify_trainer.loop",
    "research",
    "research.bootstrap",
    "research.compare",
]


@pytest.mark.parametrize("name", PACKAGES)
def test_the_map_of_a_package_names_its_modules(name: str) -> None:
    package = importlib.import_module(name)
    named = re.findall(r"^\| `(\w+)` \|", package.__doc__ or "", re.MULTILINE)
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)} - {"__main__"}
    assert sorted(named) == sorted(modules)
