"""The train phase on a Ray cluster: Ray Train places the processes on its nodes, and joins them.

What follows runs in a process of its own beside the trainer, the driver of one training: what Ray does with signals,
threads and logs is not the service's then, and when the driver is gone, Ray ends the training's actors. All nodes need
the folders of weights and state under the same paths, and the same Ramify.

(2026-11-30: how many processes there are is settled here before Ray Train begins, by what the nodes hold and what is
free of it. Ray Train's own elastic policy knows of no other users of a cluster: it asks for what they hold, and waits.)
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from ramify_trainer.config import DistributedConfig
from ramify_trainer.errors import TrainerError
from ramify_trainer.loop.ranks import take_part, tell_not_placed
from ramify_trainer.loop.training import Job
from ramify_trainer.progress import log_to_stderr

logger = logging.getLogger(__name__)
LOOK_EVERY = 5.0
"""Seconds between two looks at which nodes a cluster has."""
ROUNDING = 1e-6
"""Ray counts in whole ten thousandths, so that ten times 0.1 is 1."""
Resources = Mapping[str, float]
"""How much there is of what Ray counts, by its names: `CPU` is one core, `GPU` one GPU."""


class Room(NamedTuple):
    """The processes that some nodes hold, if nothing else runs there."""

    processes: int
    each: Resources
    """The resources that one of them takes."""
    nodes: str
    """The nodes in words."""


def room_of(nodes: Sequence[Resources], config: DistributedConfig) -> Room:
    """Count the processes for which nodes have room, each process whole on one node, with a GPU if any node has one."""
    cores, gpus = (sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU"))
    each = {"CPU": config.cpus} | ({"GPU": 1.0} if gpus else {})
    processes = sum(_times(node, each) for node in nodes)
    return Room(processes, each, f"{len(nodes)} nodes with {cores:g} CPU cores and {gpus:g} GPUs in all")


def _times(held: Resources, each: Resources) -> int:
    return min(int(held.get(kind, 0.0) / amount + ROUNDING) for kind, amount in each.items())


def require_room(config: DistributedConfig) -> None:
    """Raise `TrainerError` if there is no cluster, or if this one, as it is now, could never hold the processes."""
    from ramify.ray_cluster import ClusterError

    try:
        with _connected(config):
            room = _room(config)
    except ClusterError as error:
        raise TrainerError(str(error)) from error
    if room.processes < config.least:
        raise TrainerError(_refusal(config, room))


def drive(_: int, job: Job, config: DistributedConfig) -> None:
    """Train on the cluster. If it has no room in time, tell so in the job's folder. Raises Ray's own errors."""
    log_to_stderr()
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(config.start_seconds)
    # Ray keeps what the processes write, and tells their errors. All of it in the trainer's log would drown its own.
    with _connected(config):
        try:
            count, each = awaited_room(config)
        except TrainerError as error:
            tell_not_placed(job.folder, str(error))
            return
        _fit(job, config, count, each)


def _connected(config: DistributedConfig) -> AbstractContextManager[None]:
    from ramify.ray_cluster import connected

    return connected(config.address, setting="distributed.address", log_to_driver=False)


def _room(config: DistributedConfig) -> Room:
    import ray

    return room_of([node["Resources"] for node in ray.nodes() if node["Alive"]], config)


def _refusal(config: DistributedConfig, room: Room) -> str:
    least = f", at least {config.least} (min_processes)" if config.min_processes else ""
    gpu = " and a GPU" if "GPU" in room.each else ""
    used = "" if room.processes < config.least else "; others use it"
    return (
        f"distributed.processes is {config.processes}{least}, each of {config.cpus:g} CPU cores (cpus){gpu} on one "
        f"node, and the cluster has room for {room.processes}: {room.nodes}{used}"
    )


def awaited_room(config: DistributedConfig) -> tuple[int, Resources]:
    """Wait until there is room for as many processes as the nodes hold, or until the time is over for the fewest that
    are enough. Return how many, and what each takes. Raises `TrainerError`."""
    until = time.monotonic() + config.start_seconds
    patience = f"{config.start_seconds:g} s (distributed.start_seconds)"
    warned = False
    while True:
        room = _room(config)
        late = time.monotonic() >= until
        most = min(config.processes, _free(room.each) if late else room.processes)
        least = config.least if late else max(most, config.least)
        for count in range(most, least - 1, -1):
            if _is_free(count, room.each):
                return count, room.each
        if late:
            raise TrainerError(f"{_refusal(config, room)}. Waited {patience}")
        if not warned:
            refusal = _refusal(config, room)
            logger.warning("the training waits for room on the cluster, at most %s: %s", patience, refusal)
            warned = True
        if most < least:
            time.sleep(LOOK_EVERY)


def _free(each: Resources) -> int:
    """Count the processes for which there is room now, at most: what is free may lie on nodes apart."""
    import ray

    return _times(ray.available_resources(), each)


def _is_free(count: int, each: Resources) -> bool:
    """Tell whether Ray can place as many, now or within `LOOK_EVERY`."""
    from ray.util.placement_group import placement_group, remove_placement_group

    group = placement_group([dict(each)] * count)
    try:
        return bool(group.wait(LOOK_EVERY))
    finally:
        remove_placement_group(group)


def _fit(job: Job, config: DistributedConfig, count: int, each: Resources) -> None:
    """Let Ray Train run it, once: the trainer itself begins it again if it fails."""
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    gpu = "GPU" in each
    TorchTrainer(
        _rank,
        train_loop_config={"job": ray.put(job), "gpu": gpu},  # only who trains unpacks it, which loads torch
        torch_config=TorchConfig("nccl" if gpu else "gloo", timeout_s=math.ceil(config.timeout_seconds)),
        scaling_config=ScalingConfig(num_workers=count, use_gpu=gpu, resources_per_worker=dict(each)),
        run_config=RunConfig(
            name="ray",
            storage_path=str(job.folder),
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
        ),
    ).fit()


def _rank(given: Mapping[str, Any]) -> None:
    """Be one of the processes, which Ray Train has joined."""
    import ray

    take_part(ray.get(given["job"]), gpu=given["gpu"])
