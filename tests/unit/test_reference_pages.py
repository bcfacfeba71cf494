"""Pages that are made from what they describe are up to date, and links of all pages lead somewhere."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import typer

from ramify.cli import app as server_app
from ramify_trainer.cli import app as trainer_app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md"))]


def _reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REFERENCE = _reference()
MADE: dict[str, str] = REFERENCE.pages()


@pytest.mark.parametrize("name", MADE)
def test_a_page_that_is_made_is_up_to_date(name: str) -> None:
    page = DOCS / name
    assert page.is_file(), f"docs/{name} is missing: run `make docs`"
    assert page.read_text() == MADE[name], f"docs/{name} is out of date: run `make docs`"


def _flags(command: object) -> set[str]:
    """Every flag of a command and of those below it, but for those that typer itself adds."""
    params = {flag for p in command.params if not p.hidden for flag in p.opts if flag.startswith("--")}  # type: ignore[attr-defined]
    inner = getattr(command, "commands", {}).values()
    return params.union(*map(_flags, inner)) - {"--help", "--install-completion", "--show-completion"}


def test_every_command_and_flag_is_on_the_page_of_commands() -> None:
    page = (DOCS / "cli.md").read_text()
    for name, app in (("ramify", server_app), ("ramify-trainer", trainer_app)):
        command = typer.main.get_command(app)
        assert len(_flags(command)) > 5
        assert [flag for flag in _flags(command) if f"`{flag}`" not in page] == []
        assert [c for c in command.commands if f"## `{name} {c}" not in page] == []  # type: ignore[attr-defined]


def test_every_command_and_flag_says_what_it_is_for() -> None:
    rows = [line for line in MADE["cli.md"].splitlines() if line.startswith("| `")]
    assert [row for row in rows if row.endswith("|  |")] == []
    assert not re.search(r"^## .*\n\n\n", MADE["cli.md"], re.MULTILINE)


def test_every_key_of_the_trainers_files_is_on_its_page() -> None:
    from ramify_trainer.config import LoopConfig

    def keys(model: type, at: str) -> set[str]:
        found = set()
        for name, field in model.model_fields.items():  # type: ignore[attr-defined]
            inner = REFERENCE._inner(field)
            found |= keys(inner, f"{at}{name}.") if inner else {f"{at}{name}"}
        return found

    page = (DOCS / "trainer-configuration.md").read_text()
    for key in keys(LoopConfig, ""):
        table, _, name = key.rpartition(".")
        section = re.split(rf"## `\[+{re.escape(table)}\]+`", page)[1] if table else page
        assert f"| `{name}` |" in section.partition("## ")[0], key


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in _anchors(file), f"{page.name} links to {target}"


def _anchors(page: Path) -> set[str]:
    """GitHub's anchors of the headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen, ahead = set(), {ROOT / "README.md"}
    while ahead:
        page = ahead.pop()
        seen.add(page)
        links = re.findall(r"\]\(([\w./-]+\.md)[)#]", page.read_text())
        ahead |= {(page.parent / link).resolve() for link in links} - seen
    assert [page.name for page in DOCS.glob("*.md") if page not in seen] == []
