"""One arm after another. Each is a loop against a server of its own; one that was stopped goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from pathlib import Path

from ramify_client import AsyncAdmin, AsyncClient
from ramify_trainer.compare.config import ArmRun, CompareConfig
from ramify_trainer.compare.record import Point, keep, read
from ramify_trainer.compare.searched import searched
from ramify_trainer.errors import TrainerError
from ramify_trainer.loop.demo import a_server
from ramify_trainer.loop.rounds import Loop, Tell
from ramify_trainer.loop.state import RoundRecord

__all__ = ["compare"]

POINTS = "points.json"


def compare(config: CompareConfig, out: Path, tell: Tell, only: Collection[str] = ()) -> list[Point]:
    """Run what is left of every arm (of those named in `only`, where it names any), in `out`. All points there are.

    Raises `TrainerError`, `ramify.weights.WeightsError` and `ramify_client.RamifyError`."""
    _keep_settings(config, out)
    for run in config.runs():
        folder = out / run.name
        if (only and run.name not in only) or len(read(folder / POINTS)) > config.rounds:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        with a_server(folder, folder / "weights", config.base) as addresses:
            asyncio.run(_arm(config, run, folder, addresses, tell))
    return [point for run in config.runs() for point in read(out / run.name / POINTS)]


def _keep_settings(config: CompareConfig, out: Path) -> None:
    """Results of other settings do not belong in one table."""
    out.mkdir(parents=True, exist_ok=True)
    path, settings = out / "config.json", config.model_dump_json(indent=1)
    if path.exists() and path.read_text(encoding="utf-8") != settings:
        raise TrainerError(f"{out} was begun with other settings ({path}); give another folder")
    path.write_text(settings, encoding="utf-8")


async def _arm(
    config: CompareConfig, run: ArmRun, folder: Path, addresses: tuple[str, str], tell: Tell
) -> None:
    path, points = folder / POINTS, read(folder / POINTS)

    def said(phase: str, done: int, total: int) -> None:
        tell(f"{run.name}, round {min(len(points), config.rounds)}: {phase}", done, total)

    async with AsyncClient(addresses[0], max_retries=100) as client, AsyncAdmin(addresses[1]) as admin:
        loop = Loop(config.loop(run, folder), client, admin, said)
        await loop.start()
        if not points:
            points.append(await _measured(config, run, loop, client, RoundRecord(round=0), None))
            keep(points, path)
        while len(points) <= config.rounds:
            record, seconds = await _record(loop, len(points))
            points.append(await _measured(config, run, loop, client, record, points[-1], seconds))
            keep(points, path)
            last = points[-1]
            said(f"greedy {last.greedy:.3f}, mean@k {last.mean_at_k:.3f}, searched {last.searched:.3f}", 1, 1)


async def _record(loop: Loop, number: int) -> tuple[RoundRecord, float]:
    """A round's record and its seconds; one that ended before the run was stopped took nobody knows how long, 0."""
    if loop.state.round > number:
        return loop.state.history[number - 1], 0.0
    began = time.perf_counter()
    return await loop.round(), time.perf_counter() - began


async def _measured(
    config: CompareConfig,
    run: ArmRun,
    loop: Loop,
    client: AsyncClient,
    record: RoundRecord,
    before: Point | None,
    seconds: float = 0.0,
) -> Point:
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
        searched=await searched(client, config.searched, run.seed, lambda i, n: None),
        training=record.training,
        seconds=seconds,
    )
