"""`ramify-trainer run` against a whole server over HTTP that comes and goes."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.api.world import until
from fakes_training import PROMPT, Site, TrainedEngines, a_site, small
from ramify.weights import StoreAway
from ramify_client import AsyncAdmin, AsyncClient
from ramify_trainer.errors import TrainerError
from ramify_trainer.loop.puller import Puller
from ramify_trainer.loop.rounds import Loop, PhaseProgress
from ramify_trainer.loop.state import folder_lock
from ramify_trainer.service import FAILED, INTERRUPTED, STOPPED, Service
from training_driver import a_hanging_service, run_rounds

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]
LONG = 120.0
"""Seconds that a busy machine may need for a round; a quiet one needs 10."""


class Running:
    """A service, and what it says of itself."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.task = asyncio.create_task(service.run())

    async def get(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(base_url=str(self.service.url), timeout=LONG) as http:
            return await http.get(path)

    async def says(self, path: str, said: Callable[[httpx.Response], bool]) -> httpx.Response:
        """The first answer of which that is true."""
        async with asyncio.timeout(LONG):
            await until(lambda: self.service.url is not None or self.task.done(), LONG)
            while True:
                if self.task.done():
                    self.task.result()
                    raise AssertionError("the service has ended")
                answer = await self.get(path)
                if said(answer):
                    return answer
                await asyncio.sleep(0.02)

    async def in_phase(self, phase: str) -> httpx.Response:
        return await self.says("/readyz", lambda answer: answer.json()["phase"] == phase)

    async def stopped(self) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return await asyncio.wait_for(self.task, LONG)


@asynccontextmanager
async def a_service(
    folder: Path,
    site: Site,
    tell: PhaseProgress = lambda *_: None,
    log_probe: AsyncClient | None = None,
    **changes: Any,
) -> AsyncIterator[Running]:
    service = {"port": 0, "poll_seconds": 0.05, "longest_wait_seconds": 0.2, **changes.pop("service", {})}
    config = small(folder, site.url, site.admin_url, service=service, **changes)
    async with (
        AsyncClient(site.url, max_retries=1) as client,
        AsyncAdmin(site.admin_url) as admin,
        AsyncClient(site.url, max_retries=0, timeout=5) as probe,
    ):
        running = Running(Service(Loop(config, client, admin, tell), probe, log_probe or probe))
        try:
            yield running
        finally:
            running.task.cancel()
            await asyncio.gather(running.task, return_exceptions=True)


def ports(site: Site) -> tuple[int, int]:
    return tuple(int(url.rpartition(":")[2]) for url in (site.url, site.admin_url))  # type: ignore[return-value]


async def test_rounds_begin_when_enough_has_been_searched_by_others_and_every_figure_is_shown(
    tmp_path: Path,
) -> None:
    organic = {"rounds": None, "collect": {"problems": 0}, "service": {"min_backlog": 3}}
    async with a_site(tmp_path) as site, a_service(tmp_path, site, **organic) as running:
        waiting = await running.in_phase("waiting")
        assert (waiting.status_code, waiting.json()["reason"]) == (200, None)
        async with AsyncClient(site.url) as asker:
            for _ in range(3):
                found = await asker.search(
                    PROMPT,
                    task={"name": "exact", "problem": {"answer": "a"}},
                    search={"budget": {"simulations": 3}},
                )
            # A probe of the server may have been late on a busy machine: the next one finds it up.
            done = ('ramify_trainer_rounds_total{verdict="promoted"} 1.0', "\nramify_trainer_server_up 1.0")
            figures = (
                await running.says("/metrics", lambda answer: all(d in answer.text for d in done))
            ).text
            for line in (
                "ramify_trainer_ready 1.0",
                "ramify_trainer_server_up 1.0",
                "ramify_trainer_lease_held 1.0",
                "ramify_trainer_steps_total 4.0",
                "ramify_trainer_trees_total 3.0",
                "ramify_trainer_quarantined_records_total 0.0",
                "ramify_trainer_backlog 0.0",
                'ramify_trainer_phases_total{phase="train"} 1.0',
                'ramify_trainer_training{figure="policy_clip_share"}',
                'ramify_trainer_training{figure="policy_kl"}',
                'ramify_trainer_training{figure="policy_entropy"}',
                'ramify_trainer_training{figure="value_explained_variance"}',
                'ramify_trainer_gate{figure="greedy"}',
                'ramify_trainer_release_info{best="v00000',
            ):
                assert f"\n{line}" in figures
            assert 'release="v000002"} 1.0' in figures
            await asker.trees.feedback(found.tree.id, 1.0)
            await running.says("/metrics", lambda answer: "ramify_trainer_backlog 1.0" in answer.text)
            behind = await running.says("/metrics", lambda a: "ramify_trainer_lag_seconds 0.0" not in a.text)
            assert behind.status_code == 200
        assert await running.stopped() == STOPPED


async def test_there_are_three_routes_and_no_more(tmp_path: Path) -> None:
    async with a_site(tmp_path) as site, a_service(tmp_path, site, service={"min_backlog": 1}) as running:
        await running.says("/livez", lambda answer: answer.json() == {"live": True})
        assert (await running.get("/")).status_code == 404
        async with httpx.AsyncClient(base_url=str(running.service.url)) as http:
            assert (await http.post("/livez")).status_code == 405
            with pytest.raises(httpx.HTTPError):
                (await http.get("/livez", headers={"x": "x" * 2_000_000})).raise_for_status()


async def test_idle_connections_do_not_keep_a_prober_out(tmp_path: Path) -> None:
    async with a_site(tmp_path) as site, a_service(tmp_path, site) as running:
        await running.says("/livez", lambda answer: answer.status_code == 200)
        port = int(str(running.service.url).rpartition(":")[2])
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(100)]
        assert (await running.get("/livez")).status_code == 200
        for _, writer in idle:
            writer.transport.abort()


async def test_readiness_names_the_server_that_is_away(tmp_path: Path) -> None:
    idle = {"rounds": None, "collect": {"problems": 0}, "service": {"min_backlog": 3}}
    async with (
        a_site(tmp_path) as site,
        AsyncClient("http://127.0.0.1:9", max_retries=0) as teacher,
        a_service(tmp_path, site, log_probe=teacher, **idle) as running,
    ):
        gone = await running.says("/readyz", lambda answer: "127.0.0.1:9" in str(answer.json()["reason"]))
        assert gone.status_code == 503
        assert gone.json()["reason"].startswith("the server at http://127.0.0.1:9 is away: ")


async def test_a_server_that_goes_away_in_a_round_loses_nothing_of_it(tmp_path: Path) -> None:
    some = asyncio.Event()

    def seen(phase: str, done: int, _: int) -> None:
        if (phase, done) == ("searched", 3):
            some.set()

    async with a_site(tmp_path) as site:
        address = ports(site)
        running = await stack_of(a_service(tmp_path, site, seen, rounds=1))
        await asyncio.wait_for(some.wait(), LONG)
    service, leave = running
    gone = await service.says("/readyz", lambda answer: answer.status_code == 503)
    assert site.url in gone.json()["reason"]
    assert (await service.get("/livez")).status_code == 200
    async with a_site(tmp_path, address) as site:
        assert await asyncio.wait_for(service.task, LONG) == STOPPED
        complete = [tree for tree in await site.log.list(limit=100) if tree.status == "complete"]
        assert (len(complete), site.context.serving.release) == (6, "v000002")
    await leave()


async def stack_of(manager: Any) -> tuple[Running, Callable[[], Any]]:
    """Enter the manager; return its value and the way to leave it."""
    return await manager.__aenter__(), lambda: manager.__aexit__(None, None, None)


async def test_a_signal_ends_the_present_step_and_the_next_start_goes_on(tmp_path: Path) -> None:
    told: list[int] = []

    def seen(phase: str, done: int, _: int) -> None:
        if phase == "trained":
            told.append(done)
            if done == 2:
                os.kill(os.getpid(), signal.SIGTERM)
                halting.wait(LONG)

    halting = threading.Event()
    async with a_site(tmp_path) as site:
        async with a_service(tmp_path, site, seen, rounds=1) as running:
            loop = running.service.loop
            await until(lambda: loop.worker._halt.is_set(), LONG)
            halting.set()
            assert await asyncio.wait_for(running.task, LONG) == STOPPED
            assert (told, loop.state.phase) == ([1, 2], "train")
        async with a_service(tmp_path, site, rounds=1) as running:
            assert await asyncio.wait_for(running.task, LONG) == STOPPED
        assert (await site.searches(), site.context.serving.release) == (6, "v000002")


async def test_a_step_that_outlasts_the_deadline_is_left_and_done_again_after_the_next_start(
    tmp_path: Path,
) -> None:
    async with a_site(tmp_path) as site:
        config = small(tmp_path, site.url, site.admin_url, service={"port": 0, "stop_seconds": 0.5})
        with a_hanging_service(config) as service:
            await asyncio.to_thread(service.said, "hanging", LONG)
            service.told(signal.SIGTERM)
            await asyncio.to_thread(service.said, "train did not end in time", LONG)
            assert await asyncio.to_thread(service.ended, LONG) == STOPPED
        assert await asyncio.to_thread(run_rounds, config, 1, None) == 0
        assert (await site.searches(), site.context.serving.release) == (6, "v000002")


async def test_a_second_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    async with a_site(tmp_path) as site:
        config = small(tmp_path, site.url, site.admin_url, service={"port": 0, "stop_seconds": 600})
        with a_hanging_service(config) as service:
            await asyncio.to_thread(service.said, "hanging", LONG)
            service.told(signal.SIGTERM)
            await asyncio.to_thread(service.said, "stopping: train has 600 s", LONG)
            service.told(signal.SIGINT)
            assert await asyncio.to_thread(service.ended, LONG) == INTERRUPTED


async def test_the_lease_is_kept_in_a_long_step_and_a_lost_one_ends_the_round_unpublished(
    tmp_path: Path,
) -> None:
    blocked, halting = threading.Event(), threading.Event()

    def seen(phase: str, done: int, _: int) -> None:
        if (phase, done) == ("trained", 2):
            blocked.set()
            halting.wait(LONG)

    async with a_site(tmp_path) as site:
        server = {"url": site.url, "admin_url": site.admin_url, "lease_seconds": 2}
        async with a_service(tmp_path, site, seen, server=server) as running:
            loop = running.service.loop
            await until(blocked.is_set, LONG)
            before = loop.puller.consumer
            assert before is not None
            await until(lambda: loop.puller.consumer.version > before.version + 3, LONG)  # type: ignore[union-attr]
            async with AsyncClient(site.url) as client:
                other = Puller(client, loop.config.name, "another", tmp_path / "quarantine")
                with pytest.raises(TrainerError, match="another trainer's"):
                    await other.open()
                await site.forget(loop.config.name)
                await other.open()
                await until(lambda: loop.worker._halt.is_set(), LONG)
                halting.set()
                with pytest.raises(TrainerError, match="another trainer's"):
                    await asyncio.wait_for(running.task, LONG)
                assert (await client.consumers.get(loop.config.name)).cursor == 0
            assert [path.name for path in (tmp_path / "weights").iterdir()] == ["v000001"]
            assert site.context.serving.release == "v000001"


async def test_two_trainers_cannot_share_a_folder(tmp_path: Path) -> None:
    with (
        folder_lock(tmp_path),
        pytest.raises(TrainerError, match="another trainer runs in"),
        folder_lock(tmp_path),
    ):
        pass


async def test_what_waiting_does_not_mend_ends_the_service(tmp_path: Path) -> None:
    wrong = {"server": {"url": "", "admin_url": ""}}
    async with a_site(tmp_path, admin={"key": "the-admin-key-of-the-tests"}) as site:
        wrong["server"] = {"url": site.url, "admin_url": site.admin_url}
        async with a_service(tmp_path, site, **wrong) as running:
            with pytest.raises(Exception, match="401"):
                await asyncio.wait_for(running.task, LONG)


@pytest.mark.parametrize("seconds", [3600.0, 0.0], ids=["and comes back", "for too long"])
async def test_an_object_store_that_is_away_is_waited_for(tmp_path: Path, seconds: float) -> None:
    bucket = tmp_path / "bucket"
    objects = {"releases": f"file://{bucket}"}
    bucket.touch()  # in the folder's place
    changes: dict[str, Any] = {"weights": tmp_path / "elsewhere", "service": {"store_seconds": seconds}}
    async with (
        a_site(tmp_path, objects=objects) as site,
        a_service(tmp_path, site, rounds=1, objects=objects, **changes) as running,
    ):
        if seconds:
            gone = await running.says("/readyz", lambda a: "the object store" in str(a.json()["reason"]))
            assert (gone.status_code, (await running.get("/livez")).status_code) == (503, 200)
            assert f"{objects['releases']} failed at " in gone.json()["reason"]
            bucket.unlink()
            assert await asyncio.wait_for(running.task, LONG) == STOPPED
            assert site.context.serving.release == "v000002"
        else:
            with pytest.raises(StoreAway, match="failed at "):
                await asyncio.wait_for(running.task, LONG)


class Forgetful(TrainedEngines):
    """Engines that say that they have loaded a release, and go on with the one before."""

    def hold(self, policy: Path) -> None:
        kept = self.models
        super().hold(policy)
        self.models = kept if kept != (None, None) else self.models


async def test_a_run_of_which_no_release_is_served_does_not_look_like_a_success(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        a_site(tmp_path, engines=Forgetful()) as site,
        a_service(tmp_path, site, rounds=1) as running,
    ):
        assert await asyncio.wait_for(running.task, LONG) == FAILED
        assert site.context.serving.release == "v000001"
        (line,) = [message for message in caplog.messages if message.startswith("stopped: ")]
        assert "no release of this run is served; 1 passed the gate" in line
        assert running.service.loop.state.history[0].result == "refused"
