"""The typer application: every command under its name."""

from __future__ import annotations

from typing import Annotated

import typer

from ramify import __version__
from ramify.cli.bench import bench
from ramify.cli.demo import demo
from ramify.cli.eval import evaluate
from ramify.cli.output import console
from ramify.cli.releases import app as releases
from ramify.cli.search import search
from ramify.cli.serve import serve
from ramify.cli.trees import app as trees

app = typer.Typer(
    name="ramify",
    help="Tree search for language models: serve it, ask it, measure it, read its log.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("serve")(serve)
app.command("search")(search)
app.command("eval")(evaluate)
app.command("bench")(bench)
app.command("demo")(demo)
app.add_typer(trees, name="trees")
app.add_typer(releases, name="releases")


def _version(asked: bool) -> None:
    if asked:
        console.print(f"ramify {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Tree search for language models: serve it, ask it, measure it, read its log."""
