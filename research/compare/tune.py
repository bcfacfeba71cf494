"""Rates of arms found by trial on dev, as many trials for each: Optuna's TPE, kept on disk.

    python -m research.compare.tune --config research/configs/half-the-steps.toml --trials 8 --out runs/tuned
    python -m research.compare --config research/configs/half-the-steps.toml --tuned runs/tuned/tuned.toml

A trial is an arm's whole run, in a folder of its own; it is worth the mean@k of its end. The first has the arm's own
values. Arms take turns. What was stopped goes on, and gives the same trials as if it had not been.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Annotated

import optuna
import typer
from optuna.samplers import TPESampler
from optuna.study import Study
from optuna.trial import Trial, TrialState
from rich.console import Console

from ramify.files import replace
from ramify.search.tree import derive_seed
from ramify.tuning.study import storage
from ramify_trainer.cli import refusing, tenths_on
from ramify_trainer.errors import TrainerError
from research.compare.config import Arm, CompareConfig
from research.compare.points import Point
from research.compare.run import compare

SPACE = {"policy_learning_rate": (1.5e-4, 2.4e-3), "imitate": (0.1, 10.0), "clip_high": (0.1, 1.0)}
"""Bounds of what is tuned, drawn evenly in the logarithm."""
Run = Callable[[CompareConfig, Path], Sequence[Point]]
"""Do what is left of a comparison in a folder, and return its points."""


def tuned_settings(config: CompareConfig, arm: Arm) -> dict[str, float]:
    """Return what is tuned of an arm, with its own values: the rate, and what its objective has of the rest."""
    own = config.learning_of(arm)
    clips = not arm.trl and own.objective in ("tree_ppo", "path_ppo") and own.ratio == "ppo"
    names = {"policy_learning_rate": True, "imitate": own.imitate > 0, "clip_high": clips}
    return {name: getattr(own, name) for name, applies in names.items() if applies}


def on_dev(config: CompareConfig) -> CompareConfig:
    """Return the comparison measured on dev, and with search as good as not at all."""
    held_out, searched = (part.data.replace(":test", ":dev") for part in (config.held_out, config.searched))
    return config.model_copy(
        update={
            "held_out": config.held_out.model_copy(update={"data": held_out}),
            "searched": config.searched.model_copy(update={"data": searched, "problems": 1}),
            "passes": None,
        }
    )


def tune(
    config: CompareConfig, trials: int, seeds: int, out: Path, run: Run, only: Collection[str] = ()
) -> None:
    """Do the trials that are left, and write the best so far of every arm to `tuned.toml` after each.

    seeds: runs of one trial. only: names of the arms that are tried; all if there is none. Raises `TrainerError` for an
    arm that has phases or is not there, and what `run` raises."""
    if unknown := set(only) - {arm.name for arm in config.arms}:
        raise TrainerError(f"no arm is called {min(unknown)!r}")
    tried = {arm.name for arm in config.arms if not only or arm.name in only}
    if phased := [arm.name for arm in config.arms if arm.name in tried and config.learning_of(arm).phases]:
        raise TrainerError(f"arm {phased[0]!r} has phases, which have rates of their own: leave it out")
    out.mkdir(parents=True, exist_ok=True)
    kept, settings = storage(out / "trials.db"), on_dev(config)
    studies = [
        optuna.create_study(storage=kept, study_name=arm.name, direction="maximize", load_if_exists=True)
        for arm in config.arms
    ]
    for study in studies:
        for cut in study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING)):
            study.tell(cut.number, state=TrialState.FAIL)  # begun again below, with the same values
    for number in range(trials):
        for arm, study in zip(config.arms, studies, strict=True):
            if arm.name in tried and _ended(study) == number:
                _try(settings, arm, seeds, study, out, run)
                _write(out / "tuned.toml", config.arms, studies)


def _ended(study: Study) -> int:
    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))


def _try(config: CompareConfig, arm: Arm, seeds: int, study: Study, out: Path, run: Run) -> None:
    """Run one trial, in the folder of its number among those that ended."""
    number, own = _ended(study), tuned_settings(config, arm)
    study.sampler = _sampler(arm, number)
    if number == 0:
        study.enqueue_trial(own)
    trial = study.ask()
    learning = {**arm.learning, **_suggested(trial, own)}
    tried = arm.model_copy(update={"learning": learning, "seeds": seeds})
    points = run(config.model_copy(update={"arms": (tried,)}), out / f"{arm.name}-{number}")
    study.tell(trial, fmean(p.mean_at_k for p in points if p.round == config.rounds_of(arm)))


def _suggested(trial: Trial, names: Mapping[str, float]) -> dict[str, float]:
    return {name: _short(trial.suggest_float(name, *SPACE[name], log=True)) for name in names}


def _short(value: float) -> float:
    """Round to three digits, for people who read it."""
    return float(f"{value:.3g}")


def _sampler(arm: Arm, number: int) -> TPESampler:
    """Return the sampler of a trial, whose draws hang on the trials before it alone."""
    with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
        return TPESampler(
            seed=derive_seed(0, arm.name, number) % 2**32, n_startup_trials=3, multivariate=True
        )


def _write(path: Path, arms: Sequence[Arm], studies: Sequence[Study]) -> None:
    """Write the best trial of every study as a file for `--tuned`."""
    tables = []
    for arm, study in zip(arms, studies, strict=True):
        if count := _ended(study):
            best = study.best_trial
            said = f"# {count} trials; mean@k {100 * (best.value or 0.0):.1f} % on dev, the best of them"
            values = [f"{name} = {_short(value)}" for name, value in best.params.items()]
            tables.append("\n".join([said, f"[{arm.name}]", *values, ""]))
    replace(path, "\n".join(tables).encode())


def main(
    config: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="TOML file of the comparison.")],
    out: Annotated[Path, typer.Option(help="Folder; trials that were stopped there go on.")],
    trials: Annotated[int, typer.Option(min=1, help="Trials of every arm.")] = 8,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of one trial, with seeds 0, 1, ...")] = 1,
    arm: Annotated[list[str] | None, typer.Option(help="Only this arm; may be given several times.")] = None,
) -> None:
    """Find the rates of a comparison's arms by trial on dev."""
    tell = tenths_on(Console(stderr=True))

    def run(settings: CompareConfig, folder: Path) -> list[Point]:
        tell(f"trial {folder.name}: {dict(settings.arms[0].learning)}", 1, 1)
        # By name, so that an arm of TRL's without TRL is refused, not left out.
        return compare(settings, folder, tell, only=[one.name for one in settings.runs()])

    with refusing("tune"):
        tune(CompareConfig.read(config), trials, seeds, out, run, arm or ())
    Console().print(f"{trials} trials an arm: {out / 'tuned.toml'}", highlight=False)


if __name__ == "__main__":
    typer.run(main)
