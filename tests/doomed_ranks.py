"""Processes that train together and are lost at a point of the training, each point once.

They load no more than those of a trainer: Ray starts them anew each time."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ramify_trainer.config import DistributedConfig
from ramify_trainer.learning import checkpoint
from ramify_trainer.learning.learner import Learner
from ramify_trainer.learning.trainee import Trainee
from ramify_trainer.loop import on_ray, ranks
from ramify_trainer.loop.training import Job

KILLED = ("in a step", "between the last step and the checkpoint", "while the checkpoint is written")
"""Points at which a process is killed."""
HANGS, LATE = "hangs in a step", "does not come"
NODE_LOST = "its node is lost in a step"
"""A node of Ray's, which is not the head."""
SLOW = "takes long to say what came of it"
SLOW_SECONDS = 5.0
UNPLACED = "not placed"


def doom(job: Job, *points: str) -> None:
    """Have processes of a training be lost at these points."""
    for point in points:
        (job.folder / point).touch()


def doomed_local_rank(rank: int, job: Job, *rest: Any) -> None:
    _lie_in_wait(job.folder.parent)
    if rank == 1 and (job.folder.parent / LATE).exists():
        threading.Event().wait()
    ranks.local_rank(rank, job, *rest)


def failing_rank(rank: int, *_: Any) -> None:
    """Be the second process and fail, or the first and wait for it."""
    if rank == 0:
        threading.Event().wait()
    raise RuntimeError("out of luck")


def unplaced_drive(_: int, job: Job, config: DistributedConfig) -> None:
    """Find no place on a cluster, and count how often."""
    with (job.folder.parent / UNPLACED).open("a") as file:
        file.write("x")
    ranks.tell_not_placed(job.folder, f"no room for {config.processes}")


def times_not_placed(job: Job) -> int:
    """Return how often a training's `unplaced_drive` ran."""
    return len((job.folder / UNPLACED).read_text())


def processes_placed(config: DistributedConfig) -> int:
    """Return how many processes a cluster has room for in the end."""
    from ramify.ray_cluster import connected

    with connected(config.address, setting="distributed.address", log_to_driver=False):
        return on_ray.awaited_room(config)[0]


def doomed_drive(number: int, job: Job, config: DistributedConfig) -> None:
    on_ray._rank = _doomed_ray_rank
    on_ray.drive(number, job, config)


def _doomed_ray_rank(given: Mapping[str, Any]) -> None:
    import ray

    job = ray.get(given["job"])
    _lie_in_wait(job.folder.parent)
    ranks.take_part(job, gpu=given["gpu"])


def _lose_node() -> None:
    """Kill what Ray runs this node by, and this process with it; do nothing on the head."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    (node,) = (node for node in ray.nodes() if node["NodeID"] == here)
    if "node:__internal_head__" not in node["Resources"]:
        os.kill(os.getppid(), signal.SIGKILL)
        threading.Event().wait()


def _lie_in_wait(folder: Path) -> None:
    step, killed, written = KILLED

    def before(function: Callable[..., Any], rank: int, point: str, fate: Callable[[], Any]) -> Any:
        def doomed(*arguments: Any, **named: Any) -> Any:
            if int(os.environ["RANK"]) == rank and (folder / point).exists():
                (folder / point).unlink()
                fate()
            return function(*arguments, **named)

        return doomed

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    update = Trainee._update

    def in_a_step(*arguments: Any, **named: Any) -> Any:
        if (folder / NODE_LOST).exists():
            _lose_node()
        return update(*arguments, **named)

    tell = ranks._tell

    def late_outcome(path: Path, what: Any) -> None:
        if path.name == ranks.OUTCOME and (folder / SLOW).exists():
            time.sleep(SLOW_SECONDS)
        tell(path, what)

    Trainee._update = before(in_a_step, 1, step, die)  # type: ignore[method-assign]
    Trainee._update = before(Trainee._update, 1, HANGS, threading.Event().wait)  # type: ignore[method-assign]
    ranks._tell = late_outcome
    Learner.save = before(Learner.save, 0, killed, die)  # type: ignore[method-assign]
    checkpoint.save_file = before(checkpoint.save_file, 0, written, die)
