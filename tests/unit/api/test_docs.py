from __future__ import annotations

import re
from pathlib import Path

from ramify.api import documentation
from ramify.api.errors import STATUS

PAGE = (Path(__file__).parents[3] / "docs" / "api.md").read_text()


def test_every_route_is_on_the_api_page_with_an_example() -> None:
    for path, method in documentation.BY_PATH:
        shown = re.sub(r"\{(search_id)\}", "{id}", path)
        assert f"`{shown}`" in PAGE or f" {shown}`" in PAGE or shown in PAGE, path
        called = re.escape(re.sub(r"\{(search_id|tree)\}", "$ID", path))
        for part in (r"\{name\}", r"\{id\}"):
            called = called.replace(part, r"[\w-]+")
        assert re.search(rf"curl [^\n]*\$URL{called}\b", PAGE), (method, path)


def test_every_status_and_code_of_an_error_is_on_the_api_page() -> None:
    for code, status in STATUS.items():
        row = next((line for line in PAGE.splitlines() if line.startswith(f"| {status} |")), "")
        assert f"`{code}`" in row, code
