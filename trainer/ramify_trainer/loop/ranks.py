"""One of the processes that train together: what it takes part in, and what the first of them says of it.

The first writes two files into the job's folder: how far the training is, and at the end what came of it. Files, since
the trainer that waits for them may be on another node; the folder is one that all of them reach anyway. If an error
ends a process that the trainer has started, it is there too.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from ramify.files import replace
from ramify_trainer.errors import TrainerError
from ramify_trainer.learning.metrics import RoundMetrics
from ramify_trainer.loop.training import Job, learn
from ramify_trainer.progress import log_to_stderr

PROGRESS, OUTCOME = "progress.json", "outcome.json"
FAULT = "fault-"
"""Begins the name of the file with the error that ended a process."""
LOST_PARENT = 1
"""Exit code of a process whose trainer is gone."""
WORD_SECONDS = 30.0
"""Seconds that the first process has to say of what all refuse: the error of another one ends it."""
LOOK_EVERY = 0.1
"""Seconds between two looks at whether it has."""


def begin(rank: int, role: Callable[..., None], job: Job, *rest: Any) -> None:
    """Be a process that the trainer has started, and end with it. An error is written down in the job's folder: torch
    would leave it in one that nobody clears."""
    _end_with_parent()
    try:
        role(rank, job, *rest)
    except Exception:
        with suppress(OSError):  # as when the disk is full: the exit code says that it failed
            (job.folder / f"{FAULT}{rank}").write_text(traceback.format_exc(), encoding="utf-8")
        sys.exit(1)


def local_rank(rank: int, job: Job, meeting: Path, size: int, timeout: float) -> None:
    """Be one of `size` processes of this machine, which meet at the file `meeting`. timeout: seconds that one waits for
    another."""
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(rank)
    else:
        _share_cores(size)
        if sys.platform == "linux":
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # whatever address the machine's name may have
    world = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    os.environ |= {name: str(value) for name, value in world.items()}
    torch.distributed.init_process_group(
        "nccl" if gpu else "gloo",
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=timeout),
    )
    take_part(job, gpu=gpu)


def _share_cores(size: int) -> None:
    """Compute on one of `size` shares of this machine's cores, unless the environment says on how many.

    (Accelerate would do it with a warning, and fail on a machine that does not tell its physical cores: 1.15.)"""
    if "OMP_NUM_THREADS" not in os.environ:
        threads = max(1, torch.get_num_threads() // size)
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)


def take_part(job: Job, *, gpu: bool) -> None:
    """Train in the process group that this process is in. Raises what `learn` raises, but in the first process, which
    writes down what a trainer alone would raise."""
    if not gpu:
        os.environ["ACCELERATE_USE_CPU"] = "true"
    first = torch.distributed.get_rank() == 0
    log_to_stderr("info" if first else "error")  # all would warn of the same
    if first:
        _tell(job.folder / PROGRESS, [0, 0])
    try:
        metrics, steps = learn(job, lambda *done: _tell(job.folder / PROGRESS, done) if first else None)
        outcome: dict[str, Any] = {"metrics": asdict(metrics), "steps": steps}
    except (FloatingPointError, ValueError) as error:
        if not first:
            _await_outcome(job.folder)
            raise
        outcome = {"not_finite" if isinstance(error, FloatingPointError) else "refused": str(error)}
    if first:
        _tell(job.folder / OUTCOME, outcome)
    torch.distributed.destroy_process_group()


def progress_in(folder: Path) -> tuple[int, int] | None:
    """Return the steps done, and of how many, 0 of 0 before the first; None if the processes have not met yet."""
    told = _told(folder / PROGRESS)
    return None if told is None else (told[0], told[1])


def outcome_in(folder: Path) -> tuple[RoundMetrics, int] | None:
    """Return what `learn` returned; None if it has not. Raises what it raised, if a trainer alone would have, and
    `TrainerError` if there was no place for the processes."""
    told = _told(folder / OUTCOME)
    if told is None:
        return None
    if "not_placed" in told:
        raise TrainerError(told["not_placed"])
    if "not_finite" in told:
        raise FloatingPointError(told["not_finite"])
    if "refused" in told:
        raise ValueError(told["refused"])
    return RoundMetrics(**told["metrics"]), told["steps"]


def tell_not_placed(folder: Path, why: str) -> None:
    """Have `outcome_in` raise why there was no place for the processes: trying again would not help."""
    _tell(folder / OUTCOME, {"not_placed": why})


def fault_in(folder: Path, rank: int) -> str | None:
    """Return the error that ended a process, with where it came from; None if it wrote none."""
    try:
        return (folder / f"{FAULT}{rank}").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _await_outcome(folder: Path) -> None:
    until = time.monotonic() + WORD_SECONDS
    while not (folder / OUTCOME).exists() and time.monotonic() < until:
        time.sleep(LOOK_EVERY)


def _end_with_parent() -> None:
    """Have this process end when the one that started it is gone, whatever it computes or waits for then."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(LOST_PARENT)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _tell(path: Path, what: Any) -> None:
    replace(path, json.dumps(what).encode())


def _told(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
