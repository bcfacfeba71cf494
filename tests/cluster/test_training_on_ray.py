"""A round trained by Ray Train on a real cluster of two CPU cores, in two processes that speak gloo."""

from __future__ import annotations

import importlib.util
import logging
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from torch import Tensor

from doomed_ranks import KILLED, NODE_LOST, doom, doomed_drive, processes_placed
from fakes_training import assert_same_weights, training, weights_in, write_release
from ramify.weights import Release
from ramify_trainer.config import DistributedConfig
from ramify_trainer.errors import TrainerError
from ramify_trainer.loop import on_ray
from ramify_trainer.loop.processes import require_room, train
from ramify_trainer.loop.training import learn

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]
TESTS = Path(__file__).parents[1]
CLUSTER = """
import sys
from ramify.ray_cluster import connected
import ray
from ray.util.placement_group import placement_group, remove_placement_group
with connected(None, setting="", own=True, cpus=2, gpus=0):
    print("address", ray.get_runtime_context().gcs_address, flush=True)
    for line in sys.stdin:
        group = placement_group([{"CPU": 1}])
        print("held", group.wait(600), flush=True)
        sys.stdin.readline()
        remove_placement_group(group)
"""


NODES = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
print("address", cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


class Cluster:
    """A cluster of two CPU cores, in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.address = self._said("address ")

    @contextmanager
    def one_core_held(self) -> Iterator[None]:
        """Have somebody else use a core meanwhile."""
        self._tell("hold")
        assert self._said("held ") == "True"
        try:
            yield
        finally:
            self._tell("free")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _said(self, begins: str) -> str:
        assert self._process.stdout is not None
        said = next(line for line in self._process.stdout if line.startswith(begins))
        return said.removeprefix(begins).strip()


@pytest.fixture(scope="module", name="address")
def _address(cluster: Cluster) -> str:
    return cluster.address


@pytest.fixture(scope="module", name="cluster")
def _cluster() -> Iterator[Cluster]:
    with _running(CLUSTER) as cluster:
        yield cluster


@contextmanager
def _running(program: str) -> Iterator[Cluster]:
    """A cluster that knows the tests' modules."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("NO RAY: install requirements/fleet.lock (make test-fleet does)")
    with pytest.MonkeyPatch.context() as patched:
        # As its own clusters have it, and who is given their address has not.
        patched.setenv("RAY_AUTH_MODE", "token")
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(TESTS)},
        )
        try:
            yield Cluster(process)
        finally:
            process.communicate("", timeout=120)


@pytest.fixture(scope="module", name="base")
def _base(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return write_release(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module", name="alone")
def _alone(base: Release, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """The weights that one process ends in."""
    job = training(tmp_path_factory.mktemp("one") / "round", base)
    learn(job, lambda *_: None)
    return weights_in(job.folder)


def test_a_training_that_is_killed_at_three_points_ends_in_the_weights_of_one_process(
    address: str,
    base: Release,
    alone: dict[str, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(on_ray, "drive", doomed_drive)
    job = training(tmp_path / "round", base)
    doom(job, *KILLED)
    told: list[tuple[int, int]] = []
    config = DistributedConfig(processes=2, launcher="ray", address=address, restarts=3, start_seconds=1800)
    with caplog.at_level(logging.WARNING):
        _, steps = train(job, config, lambda *done: told.append(done), lambda: None)
    assert (steps, told[-1]) == (4, (4, 4))
    assert caplog.text.count("the training begins again") == 3
    assert sorted(path.name for path in job.folder.iterdir()) == ["learner", "policy", "value"]
    assert_same_weights(weights_in(job.folder), alone)


def test_a_cluster_with_room_for_fewer_trains_in_those(
    address: str, base: Release, alone: dict[str, Tensor], tmp_path: Path
) -> None:
    job = training(tmp_path / "round", base)
    few = DistributedConfig(
        processes=4, launcher="ray", address=address, min_processes=1, restarts=0, start_seconds=1800
    )
    train(job, few, lambda *_: None, lambda: None)
    assert_same_weights(weights_in(job.folder), alone)


def test_a_cluster_that_could_never_hold_the_processes_is_refused_at_once(address: str) -> None:
    two = DistributedConfig(processes=2, launcher="ray", address=address, start_seconds=1800)
    require_room(two)
    refusal = (
        r"^distributed\.processes is 4, at least 3 \(min_processes\), each of 1 CPU cores \(cpus\) on one node, "
        r"and the cluster has room for 2: 1 nodes with 2 CPU cores and 0 GPUs in all$"
    )
    with pytest.raises(TrainerError, match=refusal):
        require_room(two.model_copy(update={"processes": 4, "min_processes": 3}))


def test_a_training_waits_for_room_that_others_use_and_fails_once(
    cluster: Cluster, base: Release, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = training(tmp_path / "round", base)
    two = DistributedConfig(processes=2, launcher="ray", address=cluster.address, restarts=3, start_seconds=1)
    refusal = r"room for 2: .*; others use it\. Waited 1 s \(distributed\.start_seconds\)$"
    with cluster.one_core_held(), pytest.raises(TrainerError, match=refusal):
        train(job, two, lambda *_: None, lambda: None)
    assert caplog.text == ""
    assert list(job.folder.iterdir()) == []


def test_a_training_that_has_waited_takes_the_room_that_is_enough(cluster: Cluster) -> None:
    some = DistributedConfig(
        processes=2, launcher="ray", address=cluster.address, min_processes=1, start_seconds=1
    )
    with ProcessPoolExecutor(1, multiprocessing.get_context("forkserver")) as driver:
        assert driver.submit(processes_placed, some).result() == 2
        with cluster.one_core_held():
            assert driver.submit(processes_placed, some).result() == 1


def test_a_training_that_loses_a_node_ends_in_what_is_left_with_the_same_weights(
    base: Release,
    alone: dict[str, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(on_ray, "drive", doomed_drive)
    job = training(tmp_path / "round", base)
    doom(job, NODE_LOST)
    with _running(NODES) as nodes, caplog.at_level(logging.WARNING):
        elastic = DistributedConfig(
            processes=2,
            launcher="ray",
            address=nodes.address,
            min_processes=1,
            restarts=1,
            start_seconds=1800,
        )
        train(job, elastic, lambda *_: None, lambda: None)
    assert caplog.text.count("the training begins again") == 1
    assert_same_weights(weights_in(job.folder), alone)
