"""The train phase on a Ray cluster: Ray Train places the processes on its nodes, and joins them.

What follows runs in a process of its own beside the trainer, the driver of one training: what Ray does with signals,
threads and logs is not the service's then, and when the driver is gone, Ray ends the training's actors. All nodes need
the folders of weights and state under the same paths, and the same Ramify.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from typing import Any

from ramify_trainer.config import DistributedConfig
from ramify_trainer.errors import TrainerError
from ramify_trainer.loop.ranks import end_with_parent, take_part
from ramify_trainer.loop.training import Job

LOOK_EVERY = 1.0
"""Seconds between two looks at whether a cluster has nodes enough."""
NEVER = 1e9
"""Seconds after which Ray Train may begin a training that runs well anew in more processes."""


def drive(_: int, job: Job, config: DistributedConfig) -> None:
    """Train on the cluster. Raises `TrainerError` if it has no room in time, and Ray's own errors."""
    end_with_parent()
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(config.start_seconds)
    from ramify.ray_cluster import connected

    # Ray keeps what the processes write, and tells their errors. All of it in the trainer's log would drown its own.
    with connected(config.address, setting="distributed.address", log_to_driver=False):
        _fit(job, config, gpu=_awaited_room(config))


def _awaited_room(config: DistributedConfig) -> bool:
    """Wait until the cluster has room for the processes. Return True if each takes a GPU: if the cluster has any."""
    import ray

    until = time.monotonic() + config.start_seconds
    while True:
        held = ray.cluster_resources()
        gpus = held.get("GPU", 0)
        room = int(gpus if gpus else held.get("CPU", 0) / config.cpus)
        if room >= config.least:
            return bool(gpus)
        if time.monotonic() > until:
            has = f"{gpus:g} GPUs" if gpus else f"{held.get('CPU', 0):g} CPU cores"
            raise TrainerError(
                f"distributed.processes needs room for {config.least}, each of {config.cpus:g} CPU cores, and the "
                f"cluster has {has} (waited {config.start_seconds:g} s: distributed.start_seconds)"
            )
        time.sleep(LOOK_EVERY)


def _fit(job: Job, config: DistributedConfig, *, gpu: bool) -> None:
    """Let Ray Train run it, once: the trainer itself begins it again if it fails."""
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    some = config.least < config.processes
    TorchTrainer(
        _rank,
        train_loop_config={"job": ray.put(job), "gpu": gpu},  # only who trains unpacks it, which loads torch
        torch_config=TorchConfig("nccl" if gpu else "gloo", timeout_s=math.ceil(config.timeout_seconds)),
        scaling_config=ScalingConfig(
            num_workers=(config.least, config.processes) if some else config.processes,
            use_gpu=gpu,
            resources_per_worker={"CPU": config.cpus},
            elastic_resize_monitor_interval_s=NEVER,
        ),
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
