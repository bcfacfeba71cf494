"""A connection to a Ray cluster, or a cluster on this machine: for the fleet's servers and the trainer alike."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # on a busy machine Ray's own are too short
os.environ.setdefault("RAY_agent_register_timeout_ms", "120000")
os.environ.setdefault("RAY_DISABLE_IMPORT_WARNING", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else it tells its makers of every cluster

import ray
from ray.exceptions import RayError

__all__ = ["ClusterError", "connected"]

OBJECT_STORE_BYTES = 200 << 20
"""Size of the object store of a cluster on this machine: little of ours goes through it."""
GUESTS = "ramify-guests"
"""Ray's namespace of the actors that stand for guests."""
GUEST_SECONDS = 30.0
"""Seconds that a cluster waits for its guests to leave before it ends."""


class ClusterError(Exception):
    """A cluster is not there, or something on it cannot be started or did not start; the message says why."""


@contextmanager
def connected(
    address: str | None,
    *,
    setting: str,
    own: bool = False,
    cpus: int | None = None,
    gpus: int | None = None,
    log_to_driver: bool = True,
    guest: bool = False,
) -> Iterator[None]:
    """Be connected to a cluster while the block runs. own: start one on this machine if no address is given, which ends
    with the block; cpus, gpus: of such a one, `None`: all. setting: the one that gives the address. log_to_driver: show
    what its processes write. guest: be waited for by the command whose own cluster it is, at most `GUEST_SECONDS`.
    (With a cluster that ends, Ray ends the processes that are connected to it.)

    Raises `ClusterError`."""
    options: dict[str, Any] = {"address": address or "auto"}
    own = own and address is None
    if own:
        options = {
            "address": "local",
            "num_cpus": cpus,
            "num_gpus": gpus,
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
        }
    try:
        ray.init(**options, logging_level="warning", log_to_driver=log_to_driver)
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        raise ClusterError(f"{setting}: no cluster at {options['address']}: {error}") from error
    present = None
    try:
        if guest:
            present = _announced()
        yield
    finally:
        if own:
            _see_guests_off()
        ray.shutdown()
        del present  # not before: the actor ends with the last that holds it


class _Guest:
    """Is there as long as a command is connected."""


def _announced() -> Any:
    actor = ray.remote(_Guest).options(name=uuid.uuid4().hex, namespace=GUESTS, num_cpus=0)
    return actor.remote()


def _see_guests_off() -> None:
    until = time.monotonic() + GUEST_SECONDS
    with suppress(RayError):
        while time.monotonic() < until:
            if all(actor["namespace"] != GUESTS for actor in ray.util.list_named_actors(all_namespaces=True)):
                return
            time.sleep(0.1)
