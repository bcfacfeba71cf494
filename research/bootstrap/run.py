"""The bootstrap from beginning to end: policy, samples, value model, one network of both if wished, report, release.

Each stage leaves its result in the work directory and is skipped if that is already there, so a run that was
stopped goes on from its last finished stage. The settings are kept beside them: other settings need another
directory.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ramify.rewards.countdown_data import Split
from ramify.weights import Action, Details, Release, publish
from ramify_trainer.learning.learner import torch_settings
from research.bootstrap.canary import probes
from research.bootstrap.checkpoints import load_model, save_policy, save_trunk, save_value
from research.bootstrap.collect import collect, planned_answers
from research.bootstrap.config import BootstrapConfig, SamplingConfig, TrunkConfig, ValueConfig
from research.bootstrap.judge import load_judge
from research.bootstrap.policy import new_policy, train_policy
from research.bootstrap.report import Report, markdown, measure
from research.bootstrap.rollouts import Rollouts
from research.bootstrap.sampling import Sampler
from research.bootstrap.trunk import Student, Teachers, train_trunk, trunk_steps
from research.bootstrap.value import new_value, train_value, value_steps

__all__ = ["bootstrap", "progress_bar", "report_on"]


def bootstrap(
    config: BootstrapConfig,
    work: Path,
    root: Path,
    release_id: str | None = None,
    start: Release | None = None,
) -> Release:
    """Train policy and value model, measure them on dev, and publish them as a release under ``root``.

    With ``start`` its value model is trained on, and its policy kept, or trained on too (``config.train_on``).
    """
    with torch_settings(config.threads):
        return _bootstrap(config, work, root, release_id, start)


def _bootstrap(
    config: BootstrapConfig, work: Path, root: Path, release_id: str | None, start: Release | None
) -> Release:
    if start is None and not config.value_rounds:
        raise ValueError("without value_rounds there is no value model: give a release to start from")
    work.mkdir(parents=True, exist_ok=True)
    _keep_settings(config, work)
    if start is not None:
        _begin_from(start, work, config.train_on)
    times: dict[str, float] = {}
    with progress_bar() as bars:
        with _timed(times, "policy"):
            _policy_stage(config, work, bars)
        steps, policy, value = config.policy.steps, work / "policy", work / _VALUE_START
        for i, settings in enumerate(config.value_rounds, 1):
            with _timed(times, f"samples-{i}"):
                data = _samples_stage(settings.sampling, work, str(i), config.seed + 2 * i - 1, bars)
            with _timed(times, f"value-{i}"):
                value = _value_stage(settings.value, work, i, value, data, config.seed + 2 * i, bars)
            steps += value_steps(data, settings.value)
        if config.trunk is not None:
            with _timed(times, "samples-trunk"):
                data = _samples_stage(config.trunk.sampling, work, "trunk", config.seed + 100, bars)
            with _timed(times, "trunk"):
                both = _trunk_stage(config.trunk, work, value, data, config.seed + 101, bars)
            steps += trunk_steps(data, config.trunk)
            policy, value = both / "policy", both / "value"
    with _timed(times, "report"):
        report = report_on(policy, value, config, "dev")
    report["seconds_by_stage"] = times
    _write_report(report, work)
    details = _details(config.name, policy, value, steps, report)
    return publish(root, policy, value, details, release_id=release_id)


def progress_bar() -> Progress:
    """Return a progress display with steps done, times, and a last figure in the description."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )


def report_on(policy_dir: Path, value_dir: Path, config: BootstrapConfig, split: Split) -> Report:
    """Return the report on a release's two directories as they will be served: in the precision of their files."""
    policy, judge = load_model(policy_dir, "lm_head"), load_judge(policy_dir, value_dir)
    with progress_bar() as bars:
        task = bars.add_task(f"measuring on {split}", total=3 * config.report.problems)
        return measure(policy, judge, config.report, split, config.seed, lambda n: bars.advance(task, n))


def _keep_settings(config: BootstrapConfig, work: Path) -> None:
    path, settings = work / "config.json", config.model_dump_json(indent=2)
    if path.exists() and path.read_text(encoding="utf-8") != settings:
        raise ValueError(f"{work} was begun with other settings ({path}); give another work directory")
    path.write_text(settings, encoding="utf-8")


@contextmanager
def _timed(times: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    times[stage] = round(time.perf_counter() - started, 1)


@contextmanager
def _finished_directory(target: Path) -> Iterator[Path]:
    """Yield a fresh directory that becomes ``target`` when the block ends without an error."""
    draft = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    yield draft
    draft.rename(target)


def _told(bars: Progress, description: str, total: int) -> Callable[[int, float], None]:
    task = bars.add_task(description, total=total)

    def tell(done: int, loss: float) -> None:
        bars.update(task, completed=done, description=f"{description}, loss {loss:.3f}")

    return tell


_VALUE_START = "value-start"
"""In the work directory: the value model that training goes on from, if the run starts from a release."""
_POLICY_START = "policy-start"
"""The policy that training goes on from, if it is trained on."""


def _begin_from(start: Release, work: Path, train_on: bool) -> None:
    if start.value_path is None:
        raise ValueError(f"{start.path} has no value model to start from")
    policy = _POLICY_START if train_on else "policy"
    for source, name in ((start.policy_path, policy), (start.value_path, _VALUE_START)):
        if not (work / name).exists():
            with _finished_directory(work / name) as draft:
                shutil.copytree(source, draft, dirs_exist_ok=True)


def _policy_stage(config: BootstrapConfig, work: Path, bars: Progress) -> None:
    if (work / "policy").exists():
        return
    begun = work / _POLICY_START
    model = (
        load_model(begun, "lm_head")
        if begun.exists()
        else new_policy(config.network, torch.Generator().manual_seed(config.seed))
    )
    train_policy(model, config.policy, config.seed, _told(bars, "training the policy", config.policy.steps))
    with _finished_directory(work / "policy") as draft:
        save_policy(model, draft)


def _samples_stage(
    config: SamplingConfig, work: Path, name: str, seed: int, bars: Progress
) -> list[Rollouts]:
    samples = work / f"samples-{name}"
    if not samples.exists():
        task = bars.add_task(f"sampling answers ({name})", total=planned_answers(config))
        sampler = Sampler(load_model(work / "policy", "lm_head"), torch.Generator().manual_seed(seed))
        data = collect(sampler, config, seed, lambda n: bars.advance(task, n))
        with _finished_directory(samples) as draft:
            for i, part in enumerate(data):
                path = draft / f"{i:03d}-{part.count}.npz"
                np.savez_compressed(path, prompts=part.prompts, answers=part.answers, outcomes=part.outcomes)
    return [_read_samples(path) for path in sorted(samples.glob("*.npz"))]


def _read_samples(path: Path) -> Rollouts:
    with np.load(path) as arrays:
        return Rollouts(**{name: arrays[name] for name in arrays}, count=int(path.stem.rpartition("-")[2]))


def _value_stage(
    config: ValueConfig,
    work: Path,
    number: int,
    before: Path,
    data: list[Rollouts],
    seed: int,
    bars: Progress,
) -> Path:
    """Return the value model's directory, trained on from ``before``, or from the policy's trunk if there is none."""
    directory = work / f"value-{number}"
    if not directory.exists():
        trunk = load_model(before, "score") if before.exists() else load_model(work / "policy", "lm_head")
        model = new_value(trunk, torch.Generator().manual_seed(seed))
        tell = _told(bars, f"training the value model ({number})", value_steps(data, config))
        train_value(model, data, config, seed, tell)
        with _finished_directory(directory) as draft:
            save_value(model, draft)
    return directory


def _trunk_stage(
    config: TrunkConfig, work: Path, value: Path, data: list[Rollouts], seed: int, bars: Progress
) -> Path:
    """Return the directory of the one network's two parts, learned from the policy and the value model."""
    directory = work / "trunk"
    if not directory.exists():
        teachers = Teachers(load_model(work / "policy", "lm_head"), load_model(value, "score"))
        student = Student(teachers, torch.Generator().manual_seed(seed))
        tell = _told(bars, "training the policy with a value head", trunk_steps(data, config))
        train_trunk(student, teachers, data, config, seed, tell)
        with _finished_directory(directory) as draft:
            save_trunk(student.network, draft)
    return directory


def _write_report(report: Report, work: Path) -> None:
    (work / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (work / "report.md").write_text(markdown(report), encoding="utf-8")


def _details(name: str, policy: Path, value: Path, steps: int, report: Report) -> Details:
    flat = {
        f"{part}/{group}/{figure}": number
        for part in ("policy", "value")
        for group, figures in report[part].items()
        for figure, number in figures.items()
        if number is not None
    }
    return Details(
        name=name,
        default_task="countdown",
        default_action=Action(kind="step", stop=("\n",), max_tokens=16),
        default_max_tokens=36,
        canary=probes(load_model(policy, "lm_head"), load_judge(policy, value)),
        training_step=steps,
        metrics=flat,
    )
