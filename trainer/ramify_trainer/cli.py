"""The `ramify-trainer` command."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

try:
    import typer
except ModuleNotFoundError as missing:
    raise SystemExit(
        "the ramify-trainer command needs the extras train and cpu or gpu: pip install '.[cpu,train]' in a checkout, "
        "or a wheel with [cpu,train] behind its name (README.md)"
    ) from missing
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import MofNCompleteColumn, Progress

from ramify import weights
from ramify.rewards.errors import BadDataset
from ramify_client import RamifyError
from ramify_trainer.errors import TrainerError
from ramify_trainer.progress import log_to_stderr

DEMO_LOOP = Path(__file__).with_name("configs") / "loop.toml"
app = typer.Typer(no_args_is_help=True, help="Train what a tree search found back into the weights.")


@app.callback()
def main() -> None:
    """Train what a tree search found back into the weights."""
    # OpenMP reads it when torch is loaded. Threads that spin while they wait take the cores from whoever else needs
    # them, the server's engines first: on a busy machine this made training with two threads 15 times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@contextmanager
def refusing(command: str) -> Iterator[None]:
    """Say in one line what cannot be done, and exit with 1."""
    try:
        yield
    except (TrainerError, RamifyError, weights.WeightsError, BadDataset, OSError, ValueError) as error:
        Console(stderr=True).print(
            f"ramify-trainer {command}: {error}", style="red", highlight=False, markup=False, soft_wrap=True
        )
        raise typer.Exit(1) from error


@app.command("run")
def run_command(
    config: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="TOML file of the run.")],
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds, in place of the file's.")] = None,
) -> None:
    """Train a running server on its own trees, round after round, until stopped; a run that was stopped goes on."""
    from ramify_trainer.config import LoopConfig
    from ramify_trainer.service import run

    log_to_stderr()
    with refusing("run"):
        settings = LoopConfig.read(config)
        if rounds is not None:
            settings = settings.model_copy(update={"rounds": rounds})
        raise typer.Exit(run(settings, lambda *_: None))


@app.command("collect")
def collect_command(
    config: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="TOML file of the run.")],
    round_: Annotated[int, typer.Option("--round", min=1, help="Whose problems are searched.")] = 1,
) -> None:
    """Have a running server search a round's training problems, and nothing more; none is searched twice."""
    from ramify_trainer.config import LoopConfig
    from ramify_trainer.loop.collection import collect_once

    with refusing("collect"), Progress(*Progress.get_default_columns(), MofNCompleteColumn()) as bar:
        settings = LoopConfig.read(config)
        task = bar.add_task("searched", total=settings.collect.problems)
        result = collect_once(
            settings, round_, lambda done, total: bar.update(task, completed=done, total=total)
        )
    ended = ", ".join(f"{count} {status}" for status, count in result.ended.items())
    Console().print(f"{result.searches} searches ({ended}), {result.tokens} tokens", highlight=False)


@app.command("gate-power")
def gate_power_command(
    config: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="TOML file of a run; else the defaults.")
    ] = None,
    churn: Annotated[
        float, typer.Option(min=0, max=1, help="Share of problems on which training changes the answers.")
    ] = 0.15,
    trials: Annotated[int, typer.Option(min=1, help="Simulated rounds an effect.")] = 400,
) -> None:
    """Simulate how often the gate of a run promotes a candidate that is truly better, as good, or worse."""
    from ramify_trainer.config import GateConfig, LoopConfig
    from ramify_trainer.gate.power import EFFECTS, promoted_share

    with refusing("gate-power"):
        gate = LoopConfig.read(config).gate if config else GateConfig()
    for effect in EFFECTS:
        share = promoted_share(gate, effect, trials, churn)
        Console().print(f"{100 * effect:+.0f} points: promoted {100 * share:.1f} %", highlight=False)


@app.command("memory")
def memory_command(
    config: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="TOML file of a run; else the defaults.")
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Model directory in place of the base's policy."),
    ] = None,
    value: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="Its value model; none: a head on the policy's trunk."
        ),
    ] = None,
    measure: Annotated[
        bool, typer.Option(help="Also take two optimizer steps, for which the weights must be there.")
    ] = False,
) -> None:
    """Say what an optimizer step of a run needs of memory, from its models' configurations alone."""
    from ramify_trainer.config import LoopConfig, base_release
    from ramify_trainer.learning.memory import measured_step, step_memory

    log_to_stderr()
    with refusing("memory"):
        settings = LoopConfig.read(config) if config else LoopConfig()
        if value and not policy:
            raise TrainerError("--value goes with --policy, the model that it judges for")
        if not policy:
            base = base_release(settings.base)
            policy, value = base.policy_path, base.value_path
        step = step_memory(policy, value, settings.learning)
        rows = {
            "weights": step.weights,
            "moments of the optimizer": step.moments,
            "gradients": step.gradients,
            "kept for the backward pass": step.kept,
            "peak of the two passes": step.passes,
            "peak of a step": step.peak,
        }
        if measure:
            measured = measured_step(policy, value, settings.learning)
            rows |= {"measured": measured.peak - measured.before, "the program before": measured.before}
    Console().print(f"{step.parameters:,} parameters, {step.trained:,} in training", highlight=False)
    for name, size in rows.items():
        Console().print(f"{name:28}{size / 2**30:9.2f} GiB", highlight=False)


@app.command("loop")
def loop_command(
    config: Annotated[Path | None, typer.Option(help="TOML file of the run; the demo's by default.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run; one that was stopped goes on. None: runs/loop/<time>."),
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds, in place of the file's.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed, in place of the file's.")] = None,
) -> None:
    """Serve a release and train it on its own searches, round after round; each gated, published and reloaded live."""
    from ramify_trainer.config import LoopConfig
    from ramify_trainer.loop.demo import demo

    folder = out or Path("runs/loop") / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    log_to_stderr()
    with refusing("loop"):
        settings = LoopConfig.read(config or DEMO_LOOP)
        if rounds is not None:
            settings = settings.model_copy(update={"rounds": rounds})
        if seed is not None:
            settings = settings.model_copy(update={"seed": seed})
        table = demo(settings, folder, tenths_on(Console(stderr=True)))
    Console().print(Markdown(table))
    Console().print(f"results in {folder}: results.md, results.json, curve.png, weights/")


def tenths_on(console: Console) -> Callable[[str, int, int], None]:
    """Return a function that prints a line for every tenth of a phase, on a terminal or not, and each but once: some
    phases are told of again and again while nothing ends."""
    last: tuple[str, int, int] | None = None

    def tell(phase: str, done: int, total: int) -> None:
        nonlocal last
        now = phase, total, done * 10 // max(total, 1)
        if now != last:
            last = now
            count = "" if total == 1 else f" {done}/{total}"
            console.print(f"{phase}{count}", highlight=False, markup=False, soft_wrap=True)

    return tell


if __name__ == "__main__":
    app(prog_name="ramify-trainer")
