"""The search as a library: the example that `ramify.search` opens with runs, and its map names every module."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import ramify.search
from fakes import FakePolicy, FakeScorer, FakeTask, encode, letters
from ramify.search import Action, BudgetLimits, ParamError, search
from search_worlds import PROMPT, check_nodes, parity

FOLDER = Path(ramify.search.__file__).parent
PAGE = Path(__file__).parents[3] / "docs" / "library.md"


def example() -> str:
    """The program in the package's docstring."""
    found = re.search(r"::\n\n((?:    .*\n|\n)+)", ramify.search.__doc__ or "")
    assert found
    return textwrap.dedent(found[1]).strip() + "\n"


def test_the_example_of_the_package_runs_as_it_stands() -> None:
    done = subprocess.run([sys.executable, "-c", example()], capture_output=True, text=True, timeout=60)
    assert re.fullmatch(r"\d{4} (0\.[89]\d*|1\.0) \d+\n", done.stdout), done.stdout + done.stderr


def test_the_page_shows_the_same_example() -> None:
    assert f"```python\n{example()}```" in PAGE.read_text()


def reading_order() -> list[str]:
    """The modules in the order of the package's docstring."""
    return re.findall(r"^`(\w+)`:", ramify.search.__doc__ or "", re.MULTILINE)


def test_the_map_of_the_package_names_every_module_once() -> None:
    there = {path.stem for path in FOLDER.glob("[!_]*")} - {"__pycache__"}
    assert sorted(reading_order()) == sorted(there)


@pytest.mark.parametrize("module", reading_order())
def test_a_module_is_read_after_all_that_it_imports(module: str) -> None:
    path = FOLDER / module
    sources = path.glob("*.py") if path.is_dir() else [path.with_suffix(".py")]
    imported = {
        name
        for source in sources
        for groups in re.findall(
            r"^from ramify\.search(?:\.(\w+)\S*)? import (.+)", source.read_text(), re.MULTILINE
        )
        for name in (groups[0] or groups[1]).split(", ")
    }
    above = reading_order()[: reading_order().index(module) + 1]
    assert imported <= set(above)


@pytest.mark.anyio
async def test_a_search_needs_no_id_and_no_clock() -> None:
    world = FakePolicy(letters({"a": 0.5, "b": 0.5}, 2)), FakeScorer(parity), FakeTask()
    tree = await search(
        encode(PROMPT), *world, action=Action(stop=("\n",)), budget=BudgetLimits(simulations=8), seed=3
    )
    assert tree.status == "complete"
    assert tree.answer is not None
    check_nodes(tree)


@pytest.mark.anyio
async def test_a_wrong_parameter_is_named() -> None:
    with pytest.raises(ParamError, match="width"):
        await search(
            encode(PROMPT), FakePolicy(letters({"a": 1.0}, 1)), FakeScorer(parity), FakeTask(), width=0
        )
