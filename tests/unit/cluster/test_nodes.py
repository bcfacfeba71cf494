"""Why a fleet does not start on some nodes, found before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

import ramify
from fakes_releases import write_release
from ramify.cluster.file import Plan, ReplicaTable, read_plan
from ramify.cluster.nodes import Holds, Node, Sources, concerned, inspect, refusals, room

SMALL = Node("a", "10.0.0.1", 4, 0)
LARGE = Node("b", "10.0.0.2", 64, 2)
KEYS = """
[server.admin]
key = "an-admin-key-of-the-tests"
[[server.auth.keys]]
name = "alice"
key = "alice-alice-alice"
scopes = ["search"]
"""


def plan(folder: Path, replicas: str, more: str = KEYS) -> Plan:
    path = folder / "fleet.toml"
    path.write_text(
        f'name = "letters"\n[server]\nlog = "postgresql://x/y"\nweights = "weights"\n{more}\n[replicas]\n{replicas}'
    )
    return read_plan(path)


def held(content: str = "c") -> Holds:
    return Holds(ramify.__version__, "v000001", content)


def test_a_replica_is_whole_on_one_node() -> None:
    three = ReplicaTable(cpus=3)
    assert (room(three, SMALL), room(three, LARGE)) == (1, 21)
    assert (room(ReplicaTable(gpus=2), SMALL), room(ReplicaTable(gpus=2), LARGE)) == (0, 1)
    assert room(ReplicaTable(cpus=0.1), Node("c", "c", 0.3, 0)) == 3


@pytest.mark.parametrize(("replicas", "fits"), [("min = 2", True), ("min = 68", True), ("min = 69", False)])
def test_too_few_cpus_are_refused(tmp_path: Path, replicas: str, fits: bool) -> None:
    found = refusals(plan(tmp_path, replicas), [SMALL, LARGE], {"a": held(), "b": held()}, None)
    assert (found == []) == fits


def test_too_few_gpus_are_refused_with_what_is_there(tmp_path: Path) -> None:
    (said,) = refusals(plan(tmp_path, "min = 3\ngpus = 1"), [SMALL, LARGE], {"a": held(), "b": held()}, None)
    assert said == (
        "replicas.min is 3, each of 1 CPUs and 1 GPUs (replicas.cpus, replicas.gpus), and the cluster has room for 2 "
        "(10.0.0.1: 4 CPUs, 0 GPUs; 10.0.0.2: 64 CPUs, 2 GPUs)"
    )


def test_another_version_on_a_node_is_refused_by_its_address(tmp_path: Path) -> None:
    other = {"a": held(), "b": Holds("0.0.9", "v000001", "c")}
    (said,) = refusals(plan(tmp_path, "min = 1"), [SMALL, LARGE], other, "c")
    assert said == f"node 10.0.0.2 has Ramify 0.0.9, and this is {ramify.__version__}: install it there"
    (said,) = refusals(plan(tmp_path, "min = 1"), [SMALL, LARGE], other | {"b": Holds("", problem="E")}, "c")
    assert said.startswith("node 10.0.0.2 has no Ramify")


@pytest.mark.parametrize("served", [None, "c" * 64])
def test_another_release_on_a_node_is_refused(tmp_path: Path, served: str | None) -> None:
    contents = {"a": held("c" * 64), "b": held("d" * 64)}
    (said,) = refusals(plan(tmp_path, "min = 1"), [SMALL, LARGE], contents, served)
    assert said.startswith("server.release: a node holds another release")
    assert "10.0.0.2: v000001 dddddddddddd" in said
    assert refusals(plan(tmp_path, "min = 1"), [SMALL], {"a": held("c" * 64)}, served) == []


def test_a_release_is_looked_for_where_a_replica_looks(tmp_path: Path) -> None:
    first = write_release(tmp_path / "weights", 1.0, 0.1)
    second = write_release(tmp_path / "weights", 2.0, 0.2, parent="v000001")
    sources = Sources.of(plan(tmp_path, "min = 1", 'release = "weights/v000001"'))
    assert inspect(sources, None) == Holds(ramify.__version__, "v000001", first.content)
    assert inspect(sources, "v000002") == Holds(ramify.__version__, "v000002", second.content)
    assert "no release at" in str(inspect(sources, "v000009").problem)
    (said,) = refusals(plan(tmp_path, "min = 1"), [SMALL], {"a": inspect(sources, "v000009")}, "c")
    assert said.startswith("node 10.0.0.1: there is no release at")
    with_store = Sources(sources.release, sources.weights, store=True)
    assert inspect(with_store, "v000009") == Holds(ramify.__version__, "v000009")


HEAD = Node("h", "10.0.0.9", 0, 0, head=True)
OTHER = Node("o", "10.0.0.8", 0, 0)


def test_a_node_without_room_needs_no_release_and_that_of_the_door_the_version(tmp_path: Path) -> None:
    mine, nodes = plan(tmp_path, "min = 1"), [HEAD, SMALL, OTHER]
    assert concerned(mine.file.replicas, nodes) == [HEAD, SMALL]
    without = Holds(ramify.__version__, problem="there is no release at weights")
    assert refusals(mine, nodes, {"h": without, "a": held()}, "c") == []
    assert refusals(mine, nodes, {"h": held("another"), "a": held()}, "c") == []
    (said,) = refusals(mine, nodes, {"h": Holds(""), "a": held()}, "c")
    assert said.startswith("node 10.0.0.9 has no Ramify")


def test_more_than_one_node_takes_keys(tmp_path: Path) -> None:
    bare = plan(tmp_path, "min = 1", "")
    assert refusals(bare, [SMALL], {"a": held()}, None) == []
    (said,) = refusals(bare, [SMALL, LARGE], {"a": held(), "b": held()}, None)
    assert said.startswith("server.auth.keys, server.admin.key_file: the fleet has 2 nodes")
