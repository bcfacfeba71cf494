"""Several processes that train a round: whatever happens to one, the round ends in the weights of one process."""

from __future__ import annotations

import logging
import multiprocessing
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor

from doomed_ranks import (
    HANGS,
    KILLED,
    LATE,
    SLOW,
    doom,
    doomed_local_rank,
    failing_rank,
    times_not_placed,
    unplaced_drive,
)
from fakes_training import FOUR_STEPS, assert_same_weights, children, training, weights_in, write_release
from ramify.weights import Release
from ramify_trainer.compute_thread import WorkCancelled
from ramify_trainer.config import DistributedConfig
from ramify_trainer.errors import TrainerError
from ramify_trainer.loop import on_ray, processes
from ramify_trainer.loop.processes import require_room, train
from ramify_trainer.loop.training import Job, learn

pytestmark = pytest.mark.timeout(600)
TWO = DistributedConfig(processes=2)
GONE_SECONDS = 120.0


@pytest.fixture(scope="module", name="base")
def _base(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return write_release(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module", name="alone")
def _alone(base: Release, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """The weights that one process ends in."""
    job = training(tmp_path_factory.mktemp("one") / "round", base)
    threads = torch.get_num_threads()
    learn(job, nothing)
    torch.set_num_threads(threads)
    return weights_in(job.folder)


def nothing(*_: int) -> None:
    pass


@pytest.fixture(name="doomed")
def _doomed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "local_rank", doomed_local_rank)


@pytest.mark.usefixtures("doomed")
def test_a_training_that_is_killed_at_three_points_ends_in_the_weights_of_one_process(
    base: Release, alone: dict[str, Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = training(tmp_path / "round", base)
    doom(job, *KILLED)
    told: list[tuple[int, int]] = []
    with caplog.at_level(logging.WARNING):
        metrics, steps = train(
            job, TWO.model_copy(update={"restarts": 3}), lambda *done: told.append(done), nothing
        )
    assert (steps, metrics.steps, told[-1]) == (4, 4, (4, 4))
    assert caplog.text.count("the training begins again") == 3
    assert sorted(path.name for path in job.folder.iterdir()) == ["learner", "policy", "value"]
    assert_same_weights(weights_in(job.folder), alone)


@pytest.mark.usefixtures("doomed")
def test_a_process_that_hangs_counts_as_dead_after_a_while(
    base: Release, alone: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "GRACE", 1.0)
    job = training(tmp_path / "round", base)
    doom(job, HANGS)
    train(job, DistributedConfig(processes=2, restarts=3, timeout_seconds=10), nothing, nothing)
    assert_same_weights(weights_in(job.folder), alone)


@pytest.mark.usefixtures("doomed")
def test_a_training_that_fails_each_time_is_given_up_and_leaves_nothing(
    base: Release, tmp_path: Path
) -> None:
    job = training(tmp_path / "round", base)
    doom(job, KILLED[0])
    with pytest.raises(TrainerError, match=r"in 2 processes failed 1 times \(distributed\.restarts\): .+"):
        train(job, DistributedConfig(processes=2, restarts=0), nothing, nothing)
    assert list(job.folder.iterdir()) == []


def test_a_process_that_fails_says_why_and_leaves_nothing_anywhere(
    base: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "local_rank", failing_rank)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    job = training(tmp_path / "round", base)
    with pytest.raises(TrainerError, match=r"failed 1 times .*: RuntimeError: out of luck$"):
        train(job, DistributedConfig(processes=2, restarts=0), nothing, nothing)
    assert list(job.folder.iterdir()) == []
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_training_that_a_cluster_has_no_place_for_is_not_tried_again(
    base: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "drive", unplaced_drive)
    job = training(tmp_path / "round", base)
    with pytest.raises(TrainerError, match=r"^no room for 2$"):
        train(job, DistributedConfig(processes=2, launcher="ray", restarts=3), nothing, nothing)
    assert times_not_placed(job) == 1


@pytest.mark.usefixtures("doomed")
def test_what_one_process_would_refuse_is_refused_and_not_tried_again_however_late_the_first_says_so(
    base: Release, tmp_path: Path
) -> None:
    job = training(tmp_path / "round", base)
    learn(job, nothing)
    other = FOUR_STEPS.model_copy(update={"optimizer": "adamw_8bit", "sharding": "none"})
    begun = replace(job, config=other, begun=job.folder / "learner", folder=tmp_path / "next")
    begun.folder.mkdir()
    doom(begun, SLOW)
    with pytest.raises(ValueError, match='has moments of the optimizer "adamw"'):
        train(begun, TWO, nothing, nothing)


@pytest.mark.usefixtures("doomed")
def test_processes_that_do_not_meet_in_time_are_ended(base: Release, tmp_path: Path) -> None:
    job = training(tmp_path / "round", base)
    doom(job, LATE)
    with pytest.raises(TrainerError, match=r"had not met after 0\.001 s \(distributed\.start_seconds\)"):
        train(job, DistributedConfig(processes=2, restarts=0, start_seconds=0.001), nothing, nothing)
    assert multiprocessing.active_children() == []


class DeadlyTrees(list[Any]):
    """Trees of which one process can be told: the next that is dies of them."""

    def __init__(self, told: Path) -> None:
        super().__init__()
        self.told, self.much = told, bytes(1 << 20)  # more than a pipe holds

    def __reduce__(self) -> tuple[Any, ...]:
        return _told_once, (self.told,), {"much": self.much}


def _told_once(told: Path) -> list[Any]:
    if told.exists():
        os._exit(1)
    told.touch()
    return DeadlyTrees(told)


def test_a_process_that_dies_as_it_is_told_of_its_job_ends_those_before_it(
    base: Release, tmp_path: Path
) -> None:
    job = training(tmp_path / "round", base)
    deadly = replace(job, trees=DeadlyTrees(tmp_path / "told"))
    with pytest.raises(TrainerError, match="one ended before it began"):
        train(deadly, DistributedConfig(processes=2, restarts=0), nothing, nothing)
    assert (tmp_path / "told").exists()
    assert multiprocessing.active_children() == []


def test_a_training_that_is_cancelled_ends_its_processes(base: Release, tmp_path: Path) -> None:
    job = training(tmp_path / "round", base)

    def stop() -> None:
        if multiprocessing.active_children():
            raise WorkCancelled

    with pytest.raises(WorkCancelled):
        train(job, TWO, nothing, stop)
    assert multiprocessing.active_children() == []
    assert list(job.folder.iterdir()) == []


def test_the_processes_of_a_trainer_that_is_killed_end_and_the_round_is_trained_again(
    base: Release, alone: dict[str, Tensor], tmp_path: Path
) -> None:
    job = training(tmp_path / "round", base)
    said = children.Queue()
    trainer = children.Process(target=_killed, args=(job, said))
    trainer.start()
    others = [psutil.Process(pid) for pid in said.get(timeout=GONE_SECONDS)]
    trainer.kill()
    trainer.join()
    assert len(others) >= 2
    assert psutil.wait_procs(others, timeout=GONE_SECONDS)[1] == []
    train(job, TWO, nothing, nothing)
    assert_same_weights(weights_in(job.folder), alone)


def _killed(job: Job, said: Any) -> None:
    """Train until killed, and say which processes then run."""

    def told(done: int, total: int) -> None:
        said.put([process.pid for process in psutil.Process().children(recursive=True)])

    long = job.config.model_copy(update={"steps_per_round": 100_000, "epochs": 1e6})
    train(replace(job, config=long), TWO, told, nothing)


def a_room(monkeypatch: pytest.MonkeyPatch, gpus: int, cores: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr("os.cpu_count", lambda: cores)


@pytest.mark.parametrize(
    ("config", "refusal"),
    [
        ({"processes": 5}, r"distributed\.processes is 5, and this machine has 4 CPU cores"),
        ({"processes": 4}, None),
        ({"processes": 1}, None),
    ],
)
def test_more_processes_than_devices_are_refused(
    config: dict[str, Any], refusal: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_room(monkeypatch, 0, 4)
    _expect(refusal, lambda: require_room(DistributedConfig(**config)))
    a_room(monkeypatch, 4, 64)
    _expect(
        refusal and refusal.replace("CPU cores", "GPUs"), lambda: require_room(DistributedConfig(**config))
    )


def test_ray_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "find_spec", lambda name: None)
    _expect(
        'distributed.launcher is "ray", which needs Ray',
        lambda: require_room(DistributedConfig(launcher="ray")),
    )


def _expect(refusal: str | None, call: Callable[[], None]) -> None:
    if refusal is None:
        call()
    else:
        with pytest.raises(TrainerError, match=refusal):
            call()


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"processes": 0}, "processes"),
        ({"processes": 2, "launcher": "ray", "min_processes": 3}, "min_processes is 3, above processes, 2"),
        ({"processes": 2, "min_processes": 1}, 'min_processes is of launcher "ray"'),
        ({"processes": 2, "address": "10.0.0.1:6379"}, 'address is of launcher "ray"'),
        ({"processes": 2, "threads": 1}, "threads"),
    ],
)
def test_settings_without_sense_are_refused_by_name(given: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        DistributedConfig(**given)
