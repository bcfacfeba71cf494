"""Make the demo model, or measure a release of it: `python -m research.bootstrap make`, `… report`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from ramify import weights
from ramify.rewards.countdown_data import Split
from ramify_trainer.learning.learner import torch_settings
from research.bootstrap.config import BootstrapConfig, ReportConfig
from research.bootstrap.report import markdown
from research.bootstrap.run import bootstrap, report_on

app = typer.Typer(no_args_is_help=True, help="The demo's policy and value model.")


@app.command()
def make(
    config: Annotated[Path | None, typer.Option(help="TOML file of settings; the demo's by default.")] = None,
    work: Annotated[
        Path, typer.Option(help="Where stages leave their results; a stopped run goes on.")
    ] = Path("runs/bootstrap"),
    out: Annotated[Path, typer.Option(help="Directory of releases to publish in.")] = Path("runs/weights"),
    release: Annotated[
        str | None, typer.Option(help="Id to publish under; the next free one by default.")
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(help="Release to start from, whose value model is trained on; none: from nothing."),
    ] = None,
) -> None:
    """Train the demo's policy and value model and publish them as a release."""
    settings = BootstrapConfig.read(config) if config else BootstrapConfig()
    begun = weights.load_release(start) if start else None
    published = bootstrap(settings, work, out, release, begun)
    Console().print(Markdown((work / "report.md").read_text(encoding="utf-8")))
    Console().print(f"published {published.id} in {published.path}")


@app.command()
def report(
    release: Annotated[
        Path | None, typer.Option(help="Directory of a release; the shipped one by default.")
    ] = None,
    split: Annotated[Split, typer.Option(help="train, dev or test.")] = "dev",
    problems: Annotated[int, typer.Option(min=1, help="Problems of each number count.")] = 300,
    answers: Annotated[int, typer.Option(min=1, help="Sampled answers a problem.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of problems and samples.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Cores to use.")] = 2,
    out: Annotated[Path | None, typer.Option(help="JSON file to write the figures to.")] = None,
) -> None:
    """Measure a release of the demo model on held-out problems."""
    loaded = weights.load_release(release or weights.shipped())
    settings = BootstrapConfig(seed=seed, report=ReportConfig(problems=problems, answers=answers))
    with torch_settings(threads):
        figures = {
            "release": loaded.id,
            **report_on(loaded.policy_path, loaded.path / "value", settings, split),
        }
    if out is not None:
        out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    Console().print(Markdown(markdown(figures)))


if __name__ == "__main__":
    app(prog_name="python -m research.bootstrap")
