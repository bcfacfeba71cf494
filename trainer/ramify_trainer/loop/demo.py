"""A server and a trainer together: `ramify serve` as a child, its rounds, and nothing left behind.

The server may end by itself, as when the machine has no memory left. Whatever asks it then fails at once; what asks
nothing, such as a training, comes to its end first. Then the server is started anew, with the release that its log
calls active, and the rounds go on from the state on disk, as if the command had been started again.
Of two servers the student's end is waited for first, so that a teacher's may be noticed `launcher.STOP_SECONDS` late.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import httpx

from ramify.launcher import STOP_SECONDS, LaunchedServer, NotServing, launched
from ramify.weights.search_defaults import toml_value
from ramify_client import AsyncAdmin, AsyncClient, RamifyError
from ramify_trainer.config import LoopConfig, key_in
from ramify_trainer.errors import TrainerError, is_transient, is_unreachable
from ramify_trainer.gate.policy_scores import PolicyScores
from ramify_trainer.loop.processes import require_room
from ramify_trainer.loop.report import write
from ramify_trainer.loop.rounds import Loop, PhaseProgress
from ramify_trainer.loop.state import RoundRecord, folder_lock, unserved
from ramify_trainer.loop.teacher import teacher_client
from ramify_trainer.progress import RunProgress

T = TypeVar("T")
Results = tuple[list[RoundRecord], dict[str, PolicyScores]]
"""The records of all rounds, and the held-out figures of every release that was served, the base first."""
RESTARTS = 3
"""Times that a server is started anew with no phase done in between; then the command ends."""


class ServerLost(TrainerError):
    """A server that was started here has ended by itself."""


class ChildTransport(httpx.AsyncHTTPTransport):
    """Answer for a child that takes no connections: it will not come back by itself, so a client must not retry until
    its deadline."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            return await super().handle_async_request(request)
        except httpx.ConnectError as error:
            said = {"error": {"message": f"no server answers at {request.url}: {error}"}}
            return httpx.Response(503, headers={"x-should-retry": "false"}, json=said)


@contextmanager
def running_server(
    folder: Path, weights: Path, base: str, tasks: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Start a server whose releases are those in `weights`, and which has these tasks of other packages; yield its
    public and its admin address.

    Raises `TrainerError` if it does not start, and `ServerLost` if the block fails because it has ended."""
    weights.mkdir(parents=True, exist_ok=True)
    settings = folder / "server.toml"
    settings.write_text(f"extensions = {toml_value({'tasks': tasks})}\n", encoding="utf-8")
    flags = ["--config", str(settings), "--log", f"{folder}/trees.db", "--weights", str(weights)]
    flags += [] if base == "shipped" else ["--release", base]
    log = folder / "server.log"
    try:
        with launched(flags, log) as server, _noticing_its_end(server, log):
            yield server.url, server.admin_url
    except NotServing as error:
        raise TrainerError(f"{error}\nthe whole of it is in {log}") from error


@contextmanager
def _noticing_its_end(server: LaunchedServer, log: Path) -> Iterator[None]:
    """Raise `ServerLost` in place of an error of the block that came of the server's end."""
    try:
        yield
    except (RamifyError, TrainerError) as error:
        # Only a server that cannot be reached may be about to end: the end of another is not waited for.
        within = STOP_SECONDS if is_unreachable(error) else 0
        fault = server.fault(within) if is_transient(error) else None
        if fault is None:
            raise
        raise ServerLost(f"{fault}; its log is {log}") from error


@contextmanager
def served_teacher(config: LoopConfig, folder: Path) -> Iterator[LoopConfig]:
    """Serve the teacher that is a release, with its log in `folder`; yield the settings with its address, and if there
    is none such, the settings themselves.

    Raises as `running_server` does."""
    teacher = config.teacher
    if teacher is None or teacher.release is None:
        yield config
        return
    with running_server(folder, folder / "weights", teacher.release, config.tasks) as (url, _):
        served = teacher.model_copy(update={"url": url, "release": None})
        yield config.model_copy(update={"teacher": served})


async def run(
    config: LoopConfig,
    addresses: tuple[str, str],
    tell: PhaseProgress,
    progress: RunProgress | None = None,
    *,
    teacher_is_child: bool = False,
) -> Results:
    """Do all rounds that are left, on a server that is a child of this process, as the teacher's may be."""
    url, admin_url = addresses
    key, admin_key = (key_in(path) for path in (config.server.key_file, config.server.admin_key_file))
    async with (
        AsyncClient(url, key, max_retries=100, transport=ChildTransport()) as client,
        AsyncAdmin(admin_url, admin_key, transport=ChildTransport()) as admin,
        teacher_client(
            config.teacher, max_retries=100, transport=ChildTransport() if teacher_is_child else None
        ) as teacher,
    ):
        loop = Loop(config, client, admin, tell, progress, teacher)
        with loop.worker:
            await loop.start()
            return await loop.puller.holding(_rounds(loop))


async def _rounds(loop: Loop) -> Results:
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
    with folder_lock(placed.state):
        history, held_out = _served(placed, out, tell)
    write(out, history, held_out, {"config": config.model_dump(mode="json")})
    if fault := unserved(history):
        raise TrainerError(fault)
    return (out / "results.md").read_text(encoding="utf-8")


def _served(config: LoopConfig, out: Path, tell: PhaseProgress) -> Results:
    """Do all rounds on servers with their logs in `out`."""

    def served(progress: RunProgress) -> Results:
        with (
            served_teacher(config, out / "teacher") as taught,
            running_server(out, config.weights, config.base, config.tasks) as addresses,
        ):
            return asyncio.run(run(taught, addresses, tell, progress, teacher_is_child=taught is not config))

    return on_servers(served, tell)


def on_servers(work: Callable[[RunProgress], T], tell: PhaseProgress) -> T:
    """Return what `work` returns, which starts the servers that it asks. If it loses one, it is done again, and goes on
    from the state on disk. Raises `TrainerError` if that did not help."""
    progress, restarts = RunProgress(), 0
    before = progress.place
    while True:
        try:
            return work(progress)
        except ServerLost as lost:
            if progress.place != before:  # it got on in between
                restarts, before = 0, progress.place
            if restarts == RESTARTS:
                raise TrainerError(
                    f"the {progress.phase} phase lost {RESTARTS + 1} servers, one after the other: {lost}"
                ) from lost
            restarts += 1
            tell(f"the server is started anew ({restarts} of {RESTARTS}), since {lost}", 1, 1)
