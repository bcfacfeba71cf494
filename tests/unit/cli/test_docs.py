from pathlib import Path

import pytest
import typer

from ramify.cli import app

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize(("command", "page"), [("eval", "evaluation.md")])
def test_every_flag_is_in_the_docs(command, page):
    text = (DOCS / page).read_text()
    parameters = typer.main.get_command(app).commands[command].params
    flags = [name for p in parameters for name in p.opts if name.startswith("--") and name != "--help"]
    assert [flag for flag in flags if f"`{flag}`" not in text] == []


def test_every_shipped_method_is_in_the_docs():
    from ramify.evaluation.methods import load_methods

    text = (DOCS / "evaluation.md").read_text()
    assert [m.name for m in load_methods() if f"`{m.name}`" not in text] == []
