"""A server and a trainer together: `ramify serve` as a child, its rounds, and nothing left behind."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ramify_client import AsyncAdmin, AsyncClient
from ramify_trainer.config import LoopConfig, key_in
from ramify_trainer.errors import TrainerError
from ramify_trainer.gate.policy_scores import PolicyScores
from ramify_trainer.loop.report import write
from ramify_trainer.loop.rounds import Loop, PhaseProgress
from ramify_trainer.loop.state import RoundRecord, alone, unserved
from ramify_trainer.loop.training import require_one_process

START_SECONDS = 600.0
STOP_SECONDS = 60.0
READY = "  ask  "
"""In the last line of what the server says once it is ready."""


@contextmanager
def running_server(folder: Path, weights: Path, base: str) -> Iterator[tuple[str, str]]:
    """A server on free ports of this machine, its public and admin addresses. It ends with the block."""
    weights.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "ramify", "serve", "--port", "0", "--admin-port", "0"]
    command += ["--log", f"{folder}/trees.db", "--weights", str(weights)]
    command += [] if base == "shipped" else ["--release", base]
    with (folder / "server.log").open("a") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        said = _said(process)
        found = [re.search(pattern, said) for pattern in (r"at (http://\S+)", r"admin\s+(http://\S+)")]
        if not all(found):
            raise TrainerError(f"the server did not start; see {folder / 'server.log'}")
        yield tuple(match[1] for match in found if match)  # type: ignore[misc]
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _said(process: subprocess.Popen[str]) -> str:
    """Its banner; it ends early where the server does."""
    assert process.stdout is not None
    too_late = threading.Timer(START_SECONDS, process.kill)
    too_late.start()
    said = ""
    for line in process.stdout:
        said += line
        if READY in line:
            break
    too_late.cancel()
    return said


async def run(
    config: LoopConfig, addresses: tuple[str, str], tell: PhaseProgress
) -> tuple[list[RoundRecord], dict[str, PolicyScores]]:
    """All rounds; their records, and the held-out figures of every release that was served, the base first."""
    url, admin_url = addresses
    key, admin_key = (key_in(path) for path in (config.server.key_file, config.server.admin_key_file))
    async with (
        AsyncClient(url, key, max_retries=100) as client,
        AsyncAdmin(admin_url, admin_key) as admin,
    ):
        loop = Loop(config, client, admin, tell)
        await loop.start()
        return await loop.puller.holding(_rounds(loop))


async def _rounds(loop: Loop) -> tuple[list[RoundRecord], dict[str, PolicyScores]]:
    while not loop.done:
        record = await loop.round()
        loop.tell(f"round {record.round}: {record.reason}", 1, 1)
    held_out = {release: await loop.held_out(release) for release in loop.state.served}
    return loop.state.history, held_out


def demo(config: LoopConfig, out: Path, tell: PhaseProgress) -> str:
    """The whole of it in `out`; the table. Raises `TrainerError`, also if `rounds` says nothing, and if the server took
    no release that passed the gate."""
    require_one_process("loop")
    if config.rounds is None:
        raise TrainerError("rounds: say how many")
    placed = config.model_copy(update={"weights": out / "weights", "state": out / "state"})
    with alone(placed.state), running_server(out, placed.weights, config.base) as addresses:
        history, held_out = asyncio.run(run(placed, addresses, tell))
    write(out, history, held_out, {"config": config.model_dump(mode="json")})
    if fault := unserved(history):
        raise TrainerError(fault)
    return (out / "results.md").read_text(encoding="utf-8")
