"""One arm after another: a loop against a server of its own, or TRL's trainer; one that was stopped goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from pathlib import Path

from ramify.files import replace
from ramify.rewards import datasets
from ramify.rewards.verifier import Example
from ramify_client import AsyncAdmin, AsyncClient
from ramify_trainer.errors import TrainerError
from ramify_trainer.loop.demo import ChildTransport, on_servers, running_server
from ramify_trainer.loop.rounds import Loop, PhaseProgress
from ramify_trainer.loop.state import RoundRecord, folder_lock
from ramify_trainer.progress import RunProgress
from research.compare import trl_grpo
from research.compare.config import ArmRun, CompareConfig, SearchedConfig
from research.compare.costs import costed
from research.compare.grading import is_right
from research.compare.passes import measure_passes
from research.compare.points import POINTS, Point, finished, keep, read


def compare(config: CompareConfig, out: Path, tell: PhaseProgress, only: Collection[str] = ()) -> list[Point]:
    """Run what is left of every arm in `out`, of those named in `only` if it names any. Return all points there are.

    Raises `TrainerError`, `ramify.weights.WeightsError` and `ramify_client.RamifyError`."""
    asked = _asked(config, only, tell)
    _keep_settings(config, out)
    began = time.monotonic()
    left = [run for run in asked if not finished(out / run.name / POINTS, config.rounds_of(run.arm))]
    for done, run in enumerate(left, 1):
        _learn(config, run, out / run.name, tell)
        minutes = (time.monotonic() - began) / done * (len(left) - done) / 60
        tell(f"{done} of {len(left)} runs are done, about {minutes:.0f} minutes left", 1, 1)
    for run in asked:
        measure_passes(config, run, out, tell)
    folders = ((run, out / run.name) for run in config.runs())
    return [point for run, folder in folders for point in costed(read(folder / POINTS), run, folder)]


def _asked(config: CompareConfig, only: Collection[str], tell: PhaseProgress) -> list[ArmRun]:
    """Return the runs that are asked for. Without TRL its arms are left out, which is told.

    Raises `TrainerError` for a name that no run has, and for a run of TRL by name without TRL."""
    if unknown := set(only) - {run.name for run in config.runs()}:
        raise TrainerError(f"no arm and seed is called {', '.join(sorted(unknown))}")
    asked = [run for run in config.runs() if not only or run.name in only]
    missing = [run for run in asked if run.arm.trl and not trl_grpo.installed()]
    if missing and only:
        raise TrainerError(f"{missing[0].name} needs TRL: {trl_grpo.INSTALL}")
    for run in missing:
        tell(f"{run.name} is left out, since TRL is not installed: {trl_grpo.INSTALL}", 1, 1)
    return [run for run in asked if run not in missing]


def _keep_settings(config: CompareConfig, out: Path) -> None:
    """Raise `TrainerError` in a folder of other settings, whose results do not belong in one table."""
    path = out / "config.json"
    if path.exists() and not config.goes_on_from(CompareConfig.model_validate_json(path.read_bytes())):
        raise TrainerError(f"{out} was begun with other settings ({path}); give another folder")
    out.mkdir(parents=True, exist_ok=True)
    replace(path, config.model_dump_json(indent=1).encode())


def _learn(config: CompareConfig, run: ArmRun, folder: Path, tell: PhaseProgress) -> None:
    """Do what is left of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    with folder_lock(folder / "state"):
        if run.arm.trl:
            trl_grpo.learn(config, run, folder, tell)
            return

        def served(progress: RunProgress) -> None:
            with running_server(folder, folder / "weights", config.base, config.tasks) as addresses:
                asyncio.run(_arm(config, run, folder, addresses, tell, progress))

        on_servers(served, tell)


async def _arm(
    config: CompareConfig,
    run: ArmRun,
    folder: Path,
    addresses: tuple[str, str],
    tell: PhaseProgress,
    progress: RunProgress,
) -> None:
    def told(said: str, done: int, total: int) -> None:
        tell(f"{run.name}: {said}", done, total)

    public, admin_url = addresses
    async with (
        AsyncClient(public, max_retries=100, transport=ChildTransport()) as client,
        AsyncAdmin(admin_url, transport=ChildTransport()) as admin,
    ):
        loop = Loop(config.loop(run, folder), client, admin, told, progress)
        with loop.worker:
            await loop.start()
            await loop.puller.holding(_rounds(config, run, folder / POINTS, loop))


async def _rounds(config: CompareConfig, run: ArmRun, path: Path, loop: Loop) -> None:
    points = read(path)
    if not points:
        points.append(await _measured(config, run, loop, RoundRecord(round=0), None))
        keep(points, path)
    while len(points) <= config.rounds_of(run.arm):
        done = loop.state.history
        record = done[len(points) - 1] if len(done) >= len(points) else await loop.round()
        points.append(await _measured(config, run, loop, record, points[-1]))
        points = costed(points, run, path.parent)
        keep(points, path)
        last = points[-1]
        figures = f"greedy {last.greedy:.3f}, mean@k {last.mean_at_k:.3f}, searched {last.searched or 0:.3f}"
        loop.tell(f"round {last.round}: {figures}", 1, 1)


async def _measured(
    config: CompareConfig, run: ArmRun, loop: Loop, record: RoundRecord, before: Point | None
) -> Point:
    """Raises `TrainerError` if the round's release is not the one that is served."""
    if before is not None and not record.promoted:
        raise TrainerError(
            f"{run.name}: round {record.round} is not served, so it cannot be compared: {record.reason}"
        )
    held_out = (await loop.held_out(loop.state.incumbent)).figures()
    return Point(
        arm=run.arm.name,
        seed=run.seed,
        round=record.round,
        steps=record.steps,
        tokens=record.tokens + (before.tokens if before else 0),
        greedy=held_out["greedy"],
        mean_at_k=held_out["mean_at_k"],
        searched=await searched(loop.client, config.searched, run.seed),
        training=record.training,
        seconds=sum(record.seconds.values()),
    )


SECONDS = 600.0
"""Seconds that one search may wait and take."""


async def searched(client: AsyncClient, config: SearchedConfig, seed: int) -> float:
    """Return the share of problems whose given answer is right, [0, 1]. Raises `ramify_client.RamifyError`."""
    examples = datasets.load(config.data, config.problems, seed=seed)
    left = iter(enumerate(examples))
    right: list[bool] = []

    async def slot() -> None:
        for i, example in left:
            right.append(await _is_right(client, config, example, seed + i))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(config.concurrency, len(examples))):
                group.create_task(slot())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    return sum(right) / len(right)


async def _is_right(client: AsyncClient, config: SearchedConfig, example: Example, seed: int) -> bool:
    """Tell whether the answer given is right."""
    messages = [message.fields() for message in example.messages]
    result = await client.search(
        None if messages else example.prompt,
        messages=messages or None,
        task={"name": example.task, "problem": dict(example.problem)},
        search=dict(config.search),
        defaults=False,
        seed=seed,
        train=False,
        timeout=SECONDS,
    )
    return result.answer is not None and await is_right(example, result.answer.text)
