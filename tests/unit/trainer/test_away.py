"""`ramify-trainer run` while the server or the object store is away: how long it waits, and what /readyz says."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ramify.weights import StoreAway
from ramify_client import ConnectionFailed
from ramify_trainer.config import DistributedConfig, ServiceConfig
from ramify_trainer.errors import TrainerError
from ramify_trainer.probes import Health
from ramify_trainer.progress import RunProgress
from ramify_trainer.service import Service

HOUR = 3600.0
SERVER, STORE = ConnectionFailed("no connection"), StoreAway("no bucket")


class Failing:
    """A loop that has nothing to do once its start has failed as told, half an hour after the try before each time.

    A `None` among the failures is a phase that was done in between."""

    def __init__(self, failures: Sequence[Exception | None]) -> None:
        self.failures: Iterator[Exception | None] = iter(failures)
        self.now = 0.0
        self.progress = RunProgress(clock=lambda: self.now)
        self.config = SimpleNamespace(
            name="run",
            service=ServiceConfig(longest_wait_seconds=1e-3, store_seconds=HOUR),
            distributed=DistributedConfig(),
        )
        self.puller, self.done = self, True

    async def start(self) -> None:
        for failure in self.failures:
            if failure is not None:
                self.now += HOUR / 2
                raise failure
            with self.progress.during("collect"):
                pass

    async def holding(self, work: Coroutine[Any, Any, None]) -> None:
        await work


@pytest.mark.anyio
@pytest.mark.parametrize(
    "failures",
    [
        [STORE] * 2,
        [SERVER] * 9,
        [*[SERVER] * 9, STORE],
        [STORE, STORE, SERVER, STORE, STORE],
        [STORE, STORE, None, STORE, STORE],
    ],
)
async def test_an_object_store_is_waited_for_as_long_as_nothing_else_happens(
    failures: list[Exception | None],
) -> None:
    loop: Any = Failing(failures)
    await Service(loop, None, None)._work()  # type: ignore[arg-type]
    assert next(loop.failures, "none left") == "none left"


@pytest.mark.anyio
async def test_a_store_that_stays_away_ends_the_service_however_long_a_server_was_away_before() -> None:
    loop: Any = Failing([SERVER, SERVER, STORE, STORE, STORE, STORE])
    with pytest.raises(StoreAway):
        await Service(loop, None, None)._work()  # type: ignore[arg-type]
    assert len([*loop.failures]) == 1


@pytest.mark.anyio
async def test_processes_without_room_are_refused_when_the_service_begins_and_not_when_room_has_gone_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop: Any = Failing([SERVER, SERVER, STORE])
    loop.config.distributed = DistributedConfig(processes=2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr("os.cpu_count", lambda: 1 if loop.now else 2)
    await Service(loop, None, None)._work()  # type: ignore[arg-type]
    with pytest.raises(TrainerError, match="processes is 2, and this machine has 1 CPU cores"):
        await Service(loop, None, None)._work()  # type: ignore[arg-type]


def test_a_store_that_is_away_is_named_until_the_phase_that_it_failed_has_got_on() -> None:
    progress = RunProgress()
    loop: Any = SimpleNamespace(progress=progress, puller=SimpleNamespace(leased=True))
    health = Health(loop, HOUR, away=None)
    progress.entered("publish")
    health.store_failed("no bucket")
    with progress.during("publish"):
        assert health.reason == "no bucket", "also while it is tried again"
    assert health.reason is None
    progress.entered("publish")
    assert health.reason is None, "that of the next round"
    health.store_failed("no bucket")
    progress.entered("waiting")
    assert health.reason is None
