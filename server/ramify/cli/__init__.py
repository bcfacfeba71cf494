"""The `ramify` command: one module a command, each importing what it needs when it runs, so that help comes at once.

`app` is the typer application, every command under its name. Beside the commands: `http` and `tree_source` find the
server or the log that flags name, `tree_view` and `progress` draw, `completion` completes, `terminal` prints and fails.
"""

from __future__ import annotations

from typing import Annotated

try:
    import typer
except ModuleNotFoundError as missing:
    raise SystemExit(
        "the ramify command needs the extra cpu or gpu: pip install '.[cpu]' in a checkout, "
        "or a wheel with [cpu] behind its name (README.md)"
    ) from missing

from ramify import __version__
from ramify.cli.bench import bench
from ramify.cli.calibrate import calibrate
from ramify.cli.demo import demo
from ramify.cli.eval import evaluate
from ramify.cli.fleet import app as fleet
from ramify.cli.releases import app as releases
from ramify.cli.search import go_on, search
from ramify.cli.serve import serve
from ramify.cli.terminal import console
from ramify.cli.trees import app as trees
from ramify.cli.tune import tune

__all__ = ["app"]

app = typer.Typer(
    name="ramify",
    help="Tree search for language models: serve it, ask it, measure it, read its log.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("serve")(serve)
app.command("search")(search)
app.command("continue")(go_on)
app.command("eval")(evaluate)
app.command("tune")(tune)
app.command("calibrate")(calibrate)
app.command("bench")(bench)
app.command("demo")(demo)
app.add_typer(trees, name="trees")
app.add_typer(releases, name="releases")
app.add_typer(fleet, name="fleet")


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
