"""The train phase in one process or in several, which are started for one training and gone after it.

The trainer itself stays one process: lock, lease, port, server and gate are its own, and the others know of none of
them. What they make goes into a draft folder and is the round's once all of it is there. So a training that fails may
begin again, up to `distributed.restarts` times, from the learner that the round began with; and a process that outlives
its trainer, or is cut off on another node, harms nothing.

(2026-11-29: processes of `torchrun` stood beside the service for a whole run before, idle but in the train phase. The
death of one ended the service.)
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch.multiprocessing.spawn import ProcessContext, ProcessException, start_processes

from ramify.files import flush, remove
from ramify_trainer.config import DistributedConfig
from ramify_trainer.errors import TrainerError
from ramify_trainer.learning.metrics import RoundMetrics
from ramify_trainer.loop import on_ray, ranks
from ramify_trainer.loop.ranks import begin, fault_in, local_rank, outcome_in, progress_in
from ramify_trainer.loop.training import CANDIDATE, Job, learn
from ramify_trainer.progress import Progress

logger = logging.getLogger(__name__)
DRAFT = ".training-"
"""Begins the name of a draft folder."""
LOOK_EVERY = 0.5
"""Seconds between two looks at what the processes have done."""
GRACE = 15.0
"""Seconds that processes have to end by themselves."""
DRIVER_SECONDS = 120.0
"""Seconds that Ray's driver may take to start and to find the cluster."""

# Processes begin as copies of one that has loaded what they need. Otherwise each round waits until each has loaded it,
# one after another, since the next starts once the one before has taken its job.
multiprocessing.get_context("forkserver").set_forkserver_preload([ranks.__name__])


class _Lost(Exception):
    """A training ended without an outcome; the message says why."""


def train(
    job: Job, config: DistributedConfig, progress: Progress, check: Callable[[], None]
) -> tuple[RoundMetrics, int]:
    """Run `learn` as the settings say. check: called at least every `LOOK_EVERY` seconds while other processes train;
    what it raises ends them.

    Raises what `learn` raises, and `TrainerError` if the processes die again and again, do not come to a start, or are
    given no place."""
    if not config.apart:
        return learn(job, progress)
    for left in range(config.restarts, -1, -1):
        try:
            with _draft(job) as drafted:
                outcome = _attempt(drafted, config, progress, check)
                _adopt(drafted.folder, job.folder)
                return outcome
        except _Lost as lost:
            if not left:
                tries = config.restarts + 1
                last = str(lost).strip().splitlines()[-1]
                raise TrainerError(
                    f"training in {config.processes} processes failed {tries} times (distributed.restarts): {last}"
                ) from lost
            logger.warning("the training begins again, a process is gone: %s", lost)
    raise AssertionError("the last try returns or raises")


def require_room(config: DistributedConfig) -> None:
    """Raise `TrainerError` if this machine, or the cluster as it is now, could never hold the processes."""
    if config.launcher == "ray":
        _require_room_on_ray(config)
        return
    gpus = torch.cuda.device_count()
    room = gpus or os.cpu_count() or 1
    if config.processes > room:
        kind = "GPUs" if gpus else "CPU cores"
        raise TrainerError(f"distributed.processes is {config.processes}, and this machine has {room} {kind}")


def _require_room_on_ray(config: DistributedConfig) -> None:
    if not all(map(find_spec, ("ray", "pandas"))):
        raise TrainerError(
            'distributed.launcher is "ray", which needs Ray Train: pip install ".[fleet]" in a checkout, or set "local"'
        )
    with multiprocessing.get_context("forkserver").Pool(1) as driver:  # which is killed with what hangs in it
        try:
            driver.apply_async(on_ray.require_room, (config,)).get(DRIVER_SECONDS)
        except multiprocessing.TimeoutError:
            raise TrainerError(
                f"distributed.address: no word from the cluster in {DRIVER_SECONDS:g} s"
            ) from None


@contextmanager
def _draft(job: Job) -> Iterator[Job]:
    """Yield the job with a folder of its own in the round's, which is gone when the block ends, and with no path that
    depends on where a process stands."""
    folder = job.folder.absolute()
    for old in folder.glob(f"{DRAFT}*"):
        shutil.rmtree(old, ignore_errors=True)
    draft = folder / f"{DRAFT}{uuid.uuid4().hex[:12]}"
    draft.mkdir(parents=True)
    tracker = job.config.tracker_folder
    config = job.config.model_copy(update={"tracker_folder": tracker and os.path.abspath(tracker)})
    begun = None if job.begun is None else job.begun.absolute()
    try:
        yield replace(job, config=config, begun=begun, folder=draft)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _adopt(draft: Path, folder: Path) -> None:
    """Make what was trained the round's."""
    for part in (*CANDIDATE, "learner"):
        remove(folder / part)
        if (draft / part).exists():
            (draft / part).rename(folder / part)
    flush(folder)


def _attempt(
    job: Job, config: DistributedConfig, progress: Progress, check: Callable[[], None]
) -> tuple[RoundMetrics, int]:
    """Start the processes and wait until they have an outcome. Raises `_Lost` if there is none."""
    fault = "they ended without a word"
    with tempfile.TemporaryDirectory() as folder:
        context = _started(job, config, Path(folder) / "meeting")
        try:
            _wait(job.folder, context, config, progress, check)
        except ProcessException as error:
            fault = fault_in(job.folder, error.error_index) or str(error)
        finally:
            _end(context.processes)
    outcome = outcome_in(job.folder)
    if outcome is None:
        raise _Lost(fault)
    return outcome


def _started(job: Job, config: DistributedConfig, meeting: Path) -> ProcessContext:
    """Start the processes. Raises `_Lost` if one dies meanwhile."""
    if config.launcher == "ray":
        arguments: tuple[Any, ...] = (on_ray.drive, job, config)
        count = 1
    else:
        count = config.processes
        arguments = (local_rank, job, meeting, count, config.timeout_seconds)
    others = multiprocessing.active_children()
    try:
        context: ProcessContext = start_processes(  # type: ignore[no-untyped-call]
            begin, arguments, count, join=False, start_method="forkserver"
        )
    except OSError as error:  # one died before it had taken its job: nobody else knows of those before it
        _end([process for process in multiprocessing.active_children() if process not in others])
        raise _Lost(f"one ended before it began: {error}") from error
    return context


def _wait(
    folder: Path,
    context: ProcessContext,
    config: DistributedConfig,
    progress: Progress,
    check: Callable[[], None],
) -> None:
    """Wait until there is an outcome, or all processes have ended. Raises `ProcessException` if one has failed."""
    patience = config.start_seconds
    if config.launcher == "ray":
        # Its driver looks at the clock itself: first for nodes, then for the processes there.
        patience = DRIVER_SECONDS + 2 * config.start_seconds
    met_by = time.monotonic() + patience
    seen: tuple[int, int] | None = None
    ended = False
    while not ended:
        ended = context.join(LOOK_EVERY, 0) or outcome_in(folder) is not None
        check()
        now = progress_in(folder)
        if now is None and time.monotonic() > met_by:
            raise _Lost(f"they had not met after {patience:g} s (distributed.start_seconds)")
        if now is not None and now != seen and now[1]:
            progress(*now)
        seen = now


def _end(processes: Sequence[BaseProcess]) -> None:
    """End what still runs."""
    for process in processes:
        process.terminate()
    until = time.monotonic() + GRACE
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
        process.kill()
        process.join()
