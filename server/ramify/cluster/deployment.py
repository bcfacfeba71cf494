"""A fleet on Ray Serve: started, changed, watched and ended. The one module that speaks to a cluster."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from typing import Any

import ramify.ray_cluster  # first, since it says how Ray is to start

# isort: split
import ray
from ray import serve
from ray.exceptions import GetTimeoutError, RayError
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import ramify
from ramify.cluster.actors import DoorActor, ServerActor
from ramify.cluster.figures import ReservedTokens
from ramify.cluster.file import DOOR, Plan
from ramify.cluster.front import DoorLaunch
from ramify.cluster.nodes import Holds, Node, Sources, concerned, inspect, refusals
from ramify.cluster.server import LAST_WORDS, Launch
from ramify.fleet import Epoch, FleetError, FleetStore

INSPECTION = 600.0
"""Seconds that a node may take to say what it holds."""
HEALTH_PERIOD, HEALTH_SECONDS = 1.0, 10.0
"""Seconds between two questions whether an actor is healthy, and that one may take; three failures replace it."""
TRIES = 3
"""Times that the first replicas may fail to start before the fleet is given up."""
POLL = 1.0
HEAD = "node:__internal_head__"
"""Ray's own resource of the node where its head runs."""
STARTING = ("DEPLOYING", "NOT_STARTED")


def nodes() -> list[Node]:
    """Return the nodes that are alive."""
    return [
        Node(
            row["NodeID"],
            row["NodeManagerAddress"],
            row["Resources"].get("CPU", 0),
            row["Resources"].get("GPU", 0),
            HEAD in row["Resources"],
        )
        for row in ray.nodes()
        if row["Alive"]
    ]


def inspected(sources: Sources, wanted: str | None, node: Node) -> Holds:
    """Return what a node holds. An error there is its problem."""
    task = ray.remote(inspect).options(
        num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
    )
    answer = task.remote(sources, wanted)
    try:
        held: Holds = ray.get(answer, timeout=INSPECTION)
    except GetTimeoutError:
        ray.cancel(answer, force=True)
        return Holds(ramify.__version__, problem=f"it did not say within {INSPECTION:.0f} s what it holds")
    except RayError as error:
        return Holds("", problem=str(error).strip().splitlines()[-1])
    return held


def up(plan: Plan, tell: Callable[[str], None]) -> None:
    """Start a fleet, or change one that runs, and return once it is ready. tell: is told what is waited for.

    Raises `FleetError`, before anything is started if it could be known, and `LogError`."""
    name, served = plan.file.name, asyncio.run(_committed(plan))
    here = nodes()
    tell("looking at the nodes")
    sources, wanted = Sources.of(plan), None if served is None else served.release
    runs = concerned(plan.file.replicas, here)
    held = {node.id: inspected(sources, wanted, node) for node in runs}
    found = refusals(plan, here, held, None if served is None else served.content)
    if found:
        raise FleetError("\n".join(found))
    fresh = name not in serve.status().applications
    serve.start(proxy_location="Disabled")
    targets = [
        serve.RunTarget(target, name=each, route_prefix=None)
        for each, target in zip(applications(name), _deployments(plan, loopback=len(runs) == 1), strict=True)
    ]
    serve.run_many(targets, wait_for_applications_running=False)
    try:
        _until_running(plan, tell)
    except BaseException:
        if fresh:
            down(plan)
        raise


async def _committed(plan: Plan) -> Epoch | None:
    """Return the epoch that the fleet serves; `None` if nobody has joined it yet."""
    store = await FleetStore.open(plan.settings.log, plan.settings.fleet.lease_seconds / 2)
    try:
        return (await store.view()).committed if await store.has_epoch() else None
    finally:
        await store.close()


def applications(name: str) -> tuple[str, str]:
    """Return the names of a fleet's applications on Serve: of its replicas, and of its door."""
    return name, f"{name}{DOOR}"


def _deployments(plan: Plan, *, loopback: bool) -> tuple[Any, Any]:
    """Return the replicas' deployment and the door's. loopback: all is on one node, and stays there if others come."""
    replicas, drain = plan.file.replicas, plan.settings.drain_seconds + LAST_WORDS
    usual = {
        "health_check_period_s": HEALTH_PERIOD,
        "health_check_timeout_s": HEALTH_SECONDS,
        "graceful_shutdown_timeout_s": drain + LAST_WORDS,
        "max_constructor_retry_count": TRIES,
    }
    policy = AutoscalingPolicy(policy_function=ReservedTokens, policy_kwargs={"tokens": replicas.tokens})
    # One that is not to scale has these too, as min is max: Serve 2.60's replicas tell their reserved tokens
    # only if they were started with such a configuration, and `up` may come again with a larger max.
    scaling = AutoscalingConfig(min_replicas=replicas.min, max_replicas=replicas.most, policy=policy)
    at_head = {"resources": {HEAD: 0.001}}
    takes = {"num_cpus": replicas.cpus, "num_gpus": replicas.gpus, **(at_head if loopback else {})}
    launch, door_launch = Launch.of(plan), DoorLaunch.of(plan)
    server = serve.deployment(ServerActor).options(
        name="replica",
        ray_actor_options=takes,
        autoscaling_config=scaling,
        **usual,
        **_version(launch, loopback),
    )
    door = serve.deployment(DoorActor).options(
        name="door",
        ray_actor_options={"num_cpus": 0, **at_head},
        num_replicas=1,
        **usual,
        **_version(door_launch),
    )
    return server.bind(launch, loopback), door.bind(door_launch)


def _version(*what: object) -> dict[str, Any]:
    """Return the options by which Serve leaves a deployment's actors alone unless what they are made of has changed.

    Serve 2.60 takes a version from its own code alone, and otherwise makes one up: every `up` would start all anew."""
    text = repr((ramify.__version__, *what))
    return {"version": hashlib.sha256(text.encode()).hexdigest(), "_internal": True}


def _until_running(plan: Plan, tell: Callable[[str], None]) -> None:
    until = time.monotonic() + plan.file.replicas.start_seconds * TRIES
    while time.monotonic() < until:
        rows = _rows(plan)
        states = {row.status for row in rows}
        if "DEPLOY_FAILED" in states:
            raise FleetError(f"the fleet did not start:\n{said(plan)}")
        if len(rows) == 2 and states == {"RUNNING"}:
            return
        tell(said(plan).partition("\n")[0])
        time.sleep(POLL)
    raise FleetError(f"the fleet was not ready in time (replicas.start_seconds):\n{said(plan)}")


def _rows(plan: Plan) -> list[Any]:
    """Return Serve's applications that are this fleet's."""
    found = serve.status().applications
    return [found[name] for name in applications(plan.file.name) if name in found]


def said(plan: Plan) -> str:
    """Return what Serve says of the fleet, a line a deployment."""
    lines = []
    for row in _rows(plan):
        for name, deployment in row.deployments.items():
            counts = ", ".join(
                f"{count} {state.lower()}" for state, count in deployment.replica_states.items()
            )
            lines.append(f"{name}: {counts or 'none yet'} {deployment.message}".rstrip())
    return "\n".join(lines) or "starting"


def running(plan: Plan) -> bool:
    """Tell whether Serve has the fleet."""
    return bool(_rows(plan))


def down(plan: Plan) -> None:
    """Drain the replicas and end the fleet. Raises `FleetError` if that does not come to an end."""
    for name in applications(plan.file.name):
        if name in serve.status().applications:
            serve.delete(name, _blocking=False)
    until = time.monotonic() + plan.settings.drain_seconds + 4 * LAST_WORDS
    while running(plan):
        if time.monotonic() > until:
            raise FleetError(f"the fleet has not ended in time (server.drain_seconds):\n{said(plan)}")
        time.sleep(POLL)
