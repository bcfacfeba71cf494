"""The ``ramify-trainer`` command."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from ramify import weights
from ramify.rewards.countdown_data import Split
from ramify_client import RamifyError
from ramify_trainer.errors import TrainerError

DEMO_LOOP = Path(__file__).resolve().parents[1] / "configs" / "loop.toml"
app = typer.Typer(no_args_is_help=True, help="Train what a tree search found back into the weights.")


@app.callback()
def main() -> None:
    """Train what a tree search found back into the weights."""


@app.command("bootstrap")
def bootstrap_command(
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
        typer.Option(
            help="Release whose policy is kept and whose value model is trained on; none: from nothing."
        ),
    ] = None,
) -> None:
    """Train the demo's policy and value model from nothing and publish them as a release."""
    from ramify_trainer.bootstrap.config import BootstrapConfig
    from ramify_trainer.bootstrap.run import bootstrap

    settings = BootstrapConfig.read(config) if config else BootstrapConfig()
    begun = weights.load_release(start) if start else None
    published = bootstrap(settings, work, out, release, begun)
    Console().print(Markdown((work / "report.md").read_text(encoding="utf-8")))
    Console().print(f"published {published.id} in {published.path}")


@app.command("report")
def report_command(
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
    from ramify_trainer.bootstrap.config import BootstrapConfig, ReportConfig
    from ramify_trainer.bootstrap.report import markdown
    from ramify_trainer.bootstrap.run import fast_torch, report_on

    loaded = weights.load_release(release or weights.shipped())
    settings = BootstrapConfig(seed=seed, report=ReportConfig(problems=problems, answers=answers))
    with fast_torch(threads):
        report = {"release": loaded.id, **report_on(loaded.policy_path, loaded.value_path, settings, split)}
    if out is not None:
        out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    Console().print(Markdown(markdown(report)))


@app.command("loop")
def loop_command(
    config: Annotated[Path | None, typer.Option(help="TOML file of the run; the demo's by default.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run; one that was stopped goes on. None: runs/loop/<time>."),
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds, in place of the file's.")] = None,
) -> None:
    """Serve a release and train it on its own searches, round after round; each gated, published and reloaded live."""
    from ramify_trainer.loop.config import LoopConfig
    from ramify_trainer.loop.demo import demo

    settings = LoopConfig.read(config or DEMO_LOOP)
    if rounds is not None:
        settings = settings.model_copy(update={"rounds": rounds})
    folder = out or Path("runs/loop") / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    errors = Console(stderr=True)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("ramify_trainer").setLevel(logging.INFO)
    try:
        table = demo(settings, folder, TenthsOf(errors))
    except (TrainerError, RamifyError, weights.WeightsError) as error:
        errors.print(f"ramify-trainer loop: {error}", style="red", highlight=False)
        raise typer.Exit(1) from error
    Console().print(Markdown(table))
    Console().print(f"results in {folder}: results.md, results.json, curve.png, weights/")


class TenthsOf:
    """A line for every tenth of a phase, on a terminal or not."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __call__(self, phase: str, done: int, total: int) -> None:
        if total == 1 or done == total or done * 10 // total > (done - 1) * 10 // total:
            count = "" if total == 1 else f" {done}/{total}"
            self._console.print(f"{phase}{count}", highlight=False)
