"""docs/library.md shows examples/extension as it is, in its part on extensions."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (
    (ROOT / "docs" / "library.md")
    .read_text()
    .partition("\n## Tasks, algorithms and scorers of your own\n")[2]
)
EXAMPLE = ROOT / "examples" / "extension"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_every_python_block_stands_in_the_example() -> None:
    code = "\n".join(path.read_text() for path in sorted(EXAMPLE.rglob("*.py")))
    shown = blocks("python")
    assert len(shown) == 4
    assert [block for block in shown if block.strip("\n") not in code] == []


def test_the_entry_points_are_the_examples() -> None:
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    assert tomllib.loads(blocks("toml")[0])["project"]["entry-points"] == project["entry-points"]


def test_the_settings_are_taken() -> None:
    from ramify.settings import Settings

    assert Settings.model_validate(tomllib.loads(blocks("toml")[1])).extensions.scorer == "ascending"
