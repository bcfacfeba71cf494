"""The nodes of a cluster, and why a fleet does not start on them: all of it is found before anything is started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ramify
from ramify.cluster.file import Plan, ReplicaTable
from ramify.service.catalogue import resolve
from ramify.weights import ReleaseNotFound, WeightsError, load_release, shipped


@dataclass(frozen=True, slots=True)
class Node:
    """A node that is alive, with what Ray counts of it."""

    id: str
    address: str
    cpus: float
    gpus: float
    head: bool = False
    """True if Ray's head runs here, and so the front door."""


@dataclass(frozen=True, slots=True)
class Holds:
    """The version and the release that a replica would start with on a node."""

    version: str
    """Ramify's."""
    release: str | None = None
    content: str | None = None
    """sha256 over the release's files; `None`: not here, to be fetched from the store."""
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Sources:
    """The places of a replica's releases, on any node."""

    release: str | None
    """Path of the settings' own; `None`: the shipped one."""
    weights: str | None
    store: bool
    """True if releases are fetched from a store."""

    @classmethod
    def of(cls, plan: Plan) -> Sources:
        def path(given: Path | None) -> str | None:
            return None if given is None else str(plan.folder / given)

        settings = plan.settings
        return cls(path(settings.release), path(settings.weights), settings.objects.releases is not None)


def inspect(sources: Sources, wanted: str | None) -> Holds:
    """Return what this node holds of a release. wanted: its id; `None`: the settings' own."""
    version = ramify.__version__
    try:
        base = load_release(Path(sources.release) if sources.release else shipped(), verify=False)
        weights = None if sources.weights is None else Path(sources.weights)
        found = base if wanted is None else load_release(resolve(weights, base, wanted), verify=False)
    except ReleaseNotFound as error:
        return Holds(version, wanted, problem=None if sources.store else str(error))
    except (WeightsError, OSError) as error:
        return Holds(version, wanted, problem=str(error))
    return Holds(version, found.id, found.content)


def room(replicas: ReplicaTable, node: Node) -> int:
    """Return how many replicas fit on a node, each whole."""
    by_cpus = int(node.cpus / replicas.cpus + 1e-9)
    return min(by_cpus, int(node.gpus / replicas.gpus + 1e-9)) if replicas.gpus else by_cpus


def concerned(replicas: ReplicaTable, nodes: Sequence[Node]) -> list[Node]:
    """Return the nodes on which something of a fleet may run: the front door, or replicas."""
    return [node for node in nodes if node.head or room(replicas, node)]


def refusals(plan: Plan, nodes: Sequence[Node], held: Mapping[str, Holds], content: str | None) -> list[str]:
    """Return why a fleet does not start on these nodes; nothing if it does.

    held: what each of the `concerned` nodes holds, by its id. content: of the release that the fleet serves; `None`:
    there is no epoch yet, and all nodes must hold the same."""
    replicas, found = plan.file.replicas, []
    places = sum(room(replicas, node) for node in nodes)
    if places < replicas.min:
        each = f"{replicas.cpus:g} CPUs" + (f" and {replicas.gpus} GPUs" if replicas.gpus else "")
        have = "; ".join(f"{node.address}: {node.cpus:g} CPUs, {node.gpus:g} GPUs" for node in nodes)
        found.append(
            f"replicas.min is {replicas.min}, each of {each} (replicas.cpus, replicas.gpus), and the cluster has "
            f"room for {places} ({have})"
        )
    runs = concerned(replicas, nodes)
    serves = [node for node in runs if room(replicas, node)]
    for node in runs:
        found += _misfits(node, held[node.id], serves=node in serves)
    contents = {content for node in serves if (content := held[node.id].content) is not None}
    if contents - {content or next(iter(contents), None)}:
        theirs = ", ".join(
            f"{node.address}: {held[node.id].release} {(held[node.id].content or '')[:12]}" for node in serves
        )
        served = f"the fleet serves {content[:12]}" if content else "all nodes must hold the same"
        found.append(
            f"server.release: a node holds another release; {served} (sha256 of its manifest): {theirs}"
        )
    if len(runs) > 1 and not (plan.keyed and plan.admin_keyed):
        found.append(
            f"server.auth.keys, server.admin.key_file: the fleet has {len(runs)} nodes, so replicas listen on their "
            "nodes' addresses, which takes API keys and an admin key"
        )
    return found


def _misfits(node: Node, held: Holds, *, serves: bool) -> list[str]:
    """Return why a node is refused. serves: replicas may run there, which need the release."""
    if held.version != ramify.__version__:
        theirs = f"Ramify {held.version}" if held.version else "no Ramify"
        return [
            f"node {node.address} has {theirs}, and this is {ramify.__version__}: {held.problem or 'install it there'}"
        ]
    return [f"node {node.address}: {held.problem}"] if serves and held.problem else []
