from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

import ramify.api.openai
import ramify.api.routes
from ramify.api import documentation
from ramify.api.errors import STATUS

PAGE = (Path(__file__).parents[3] / "docs" / "api.md").read_text()


def test_every_route_is_on_the_api_page_with_an_example() -> None:
    for path, method in documentation.BY_PATH:
        shown = re.sub(r"\{(search_id|batch_id)\}", "{id}", path)
        assert f"`{shown}`" in PAGE or f" {shown}`" in PAGE or shown in PAGE, path
        called = re.escape(re.sub(r"\{(search_id|tree)\}", "$ID", path))
        for part in (r"\{name\}", r"\{id\}", r"\{batch_id\}"):
            called = called.replace(part, r"[\w-]+")
        assert re.search(rf"curl [^\n]*\$URL{called}\b", PAGE), (method, path)


def test_every_status_and_code_of_an_error_is_on_the_api_page() -> None:
    for code, status in STATUS.items():
        row = next((line for line in PAGE.splitlines() if line.startswith(f"| {status} |")), "")
        assert f"`{code}`" in row, code


@pytest.mark.parametrize("package", [ramify.api, ramify.api.openai, ramify.api.routes])
def test_the_map_of_a_package_names_every_module_once(package: ModuleType) -> None:
    """As `ramify.search` does, in lines that begin with the module's name."""
    named = re.findall(r"^`(\w+)`:", package.__doc__ or "", re.MULTILINE)
    assert package.__file__
    there = {path.stem for path in Path(package.__file__).parent.glob("[!_]*")}
    assert sorted(named) == sorted(there)
