"""A server and a trainer together: `ramify serve` as a child, its rounds, and nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ramify.launcher import NotServing, launched
from ramify_client import AsyncAdmin, AsyncClient
from ramify_trainer.config import LoopConfig, key_in
from ramify_trainer.errors import TrainerError
from ramify_trainer.gate.policy_scores import PolicyScores
from ramify_trainer.loop.processes import require_room
from ramify_trainer.loop.report import write
from ramify_trainer.loop.rounds import Loop, PhaseProgress
from ramify_trainer.loop.state import RoundRecord, folder_lock, unserved
from ramify_trainer.loop.teacher import teacher_client


@contextmanager
def running_server(folder: Path, weights: Path, base: str) -> Iterator[tuple[str, str]]:
    """Start a server whose releases are those in `weights`; yield its public and its admin address.

    Raises `TrainerError` if it does not start."""
    weights.mkdir(parents=True, exist_ok=True)
    flags = ["--log", f"{folder}/trees.db", "--weights", str(weights)]
    flags += [] if base == "shipped" else ["--release", base]
    try:
        with launched(flags, folder / "server.log") as addresses:
            yield addresses
    except NotServing as error:
        raise TrainerError(f"{error}\nthe whole of it is in {folder / 'server.log'}") from error


@contextmanager
def served_teacher(config: LoopConfig, folder: Path) -> Iterator[LoopConfig]:
    """Serve the teacher that is a release, with its log in `folder`; yield the settings with its address.

    Raises `TrainerError` if it does not start."""
    teacher = config.teacher
    if teacher is None or teacher.release is None:
        yield config
        return
    with running_server(folder, folder / "weights", teacher.release) as (url, _):
        served = teacher.model_copy(update={"url": url, "release": None})
        yield config.model_copy(update={"teacher": served})


async def run(
    config: LoopConfig, addresses: tuple[str, str], tell: PhaseProgress
) -> tuple[list[RoundRecord], dict[str, PolicyScores]]:
    """Do all rounds; return their records, and the held-out figures of every release that was served, the base
    first."""
    url, admin_url = addresses
    key, admin_key = (key_in(path) for path in (config.server.key_file, config.server.admin_key_file))
    async with (
        AsyncClient(url, key, max_retries=100) as client,
        AsyncAdmin(admin_url, admin_key) as admin,
        teacher_client(config.teacher, max_retries=100) as teacher,
    ):
        loop = Loop(config, client, admin, tell, teacher=teacher)
        with loop.worker:
            await loop.start()
            return await loop.puller.holding(_rounds(loop))


async def _rounds(loop: Loop) -> tuple[list[RoundRecord], dict[str, PolicyScores]]:
    while not loop.done:
        record = await loop.round()
        loop.tell(f"round {record.round}: {record.reason}", 1, 1)
    held_out = {release: await loop.held_out(release) for release in loop.state.served}
    return loop.state.history, held_out


def demo(config: LoopConfig, out: Path, tell: PhaseProgress) -> str:
    """Serve, train and report in `out`; return the table. Raises `TrainerError`, also if `rounds` says nothing, and
    if the server took no release that passed the gate."""
    if config.rounds is None:
        raise TrainerError("rounds: say how many")
    require_room(config.distributed)
    placed = config.model_copy(update={"weights": out / "weights", "state": out / "state"})
    with (
        folder_lock(placed.state),
        running_server(out, placed.weights, config.base) as addresses,
        served_teacher(placed, out / "teacher") as taught,
    ):
        history, held_out = asyncio.run(run(taught, addresses, tell))
    write(out, history, held_out, {"config": config.model_dump(mode="json")})
    if fault := unserved(history):
        raise TrainerError(fault)
    return (out / "results.md").read_text(encoding="utf-8")
