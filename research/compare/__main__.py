"""Learn in several ways from one base, at equal generated tokens, and equal optimizer steps unless an arm has its own;
tables and curves."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from ramify_trainer.cli import refusing, tenths_on
from research.compare.config import CompareConfig
from research.compare.report import write
from research.compare.run import compare

CONFIG = Path(__file__).parents[1] / "configs" / "compare.toml"


def main(
    config: Annotated[Path, typer.Option(help="TOML file of the comparison.")] = CONFIG,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of results; a comparison that was stopped goes on. None: runs/compare/<time>."
        ),
    ] = None,
    tuned: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Arms' own values, as research.compare.tune found them."
        ),
    ] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(help="Only this arm and seed, as `flat_ppo-0`; may be given several times."),
    ] = None,
) -> None:
    """Learn in several ways from one base, at equal generated tokens, and equal optimizer steps unless an arm has its
    own; tables and curves."""
    folder = out or Path("runs/compare") / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    with refusing("compare"):
        settings = CompareConfig.read(config)
        if tuned is not None:
            settings = settings.tuned_by(tuned)
        points = compare(settings, folder, tenths_on(Console(stderr=True)), arm or ())
    Console().print(Markdown(write(folder, settings, points)))
    Console().print(f"results in {folder}: results.md, results.json, curves.png")


if __name__ == "__main__":
    typer.run(main)
