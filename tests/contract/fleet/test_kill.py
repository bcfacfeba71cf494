"""kill -9 of a replica at each step of an activation: it ends, and who comes back serves what is committed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from contract.fleet.replicas import SHORT, Remote, a_process, until_ready

pytestmark = [pytest.mark.anyio, pytest.mark.postgres, pytest.mark.timeout(600)]
STEPS = (
    ("preparing", "rolling", "v000002"),
    ("prepared", "barrier", "v000003"),
    ("switching", "barrier", "v000002"),
    ("switched", "rolling", "v000003"),
)


async def until_committed(one: Remote, epoch: int) -> None:
    async with asyncio.timeout(60):
        while (await one.state())["committed"]["number"] < epoch:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_kill_9_at_each_step_ends_the_activation_and_who_comes_back_serves_what_is_committed(
    url: str, root: Path, tmp_path: Path
) -> None:
    short = {"RAMIFY_FLEET__LEASE_SECONDS": str(SHORT)}
    async with a_process(url, root, tmp_path, **short) as one:
        await until_ready(one)
        for epoch, (step, mode, release) in enumerate(STEPS, 2):
            async with a_process(url, root, tmp_path, **short, DIE_AT=step) as victim:
                await until_ready(victim)
                asked = victim if step == "switching" else one
                activation = asyncio.create_task(asked.activate(release, mode=mode))
                assert await victim.process.wait() == -9
                if asked is victim:  # nobody hears of it, and it goes on
                    with pytest.raises(httpx.HTTPError):
                        await activation
                    await until_committed(one, epoch)
                else:
                    assert (await activation).json()["epoch"] == epoch
                await until_ready(one)
                assert (await one.search()).json()["release"] == release
        async with a_process(url, root, tmp_path, **short) as again:
            await until_ready(again)
            assert (await again.search()).json()["release"] == STEPS[-1][2]


async def test_a_replica_that_was_frozen_past_its_lease_answers_nothing_old_when_it_wakes(
    url: str, root: Path, tmp_path: Path
) -> None:
    short = {"RAMIFY_FLEET__LEASE_SECONDS": str(SHORT)}
    async with a_process(url, root, tmp_path, **short) as one, a_process(url, root, tmp_path, **short) as two:
        await until_ready(one, two)
        two.freeze()
        asked = [asyncio.create_task(two.search()) for _ in range(4)]
        assert (await one.activate("v000002", mode="barrier")).status_code == 200
        two.thaw()
        for reply in await asyncio.gather(*asked):
            assert reply.status_code == 503 or reply.json()["release"] == "v000002"
        await until_ready(two)
        assert (await two.search()).json()["release"] == "v000002"


async def test_a_process_whose_folder_lacks_the_committed_release_does_not_start_and_says_so(
    url: str, root: Path, tmp_path: Path
) -> None:
    async with a_process(url, root, tmp_path) as one:
        await until_ready(one)
        assert (await one.activate("v000002")).status_code == 200
        (root / "v000002").rename(tmp_path / "elsewhere")
        with pytest.raises(AssertionError, match="the fleet serves v000002, which cannot be served here"):
            async with a_process(url, root, tmp_path):
                pass
        assert (await one.search()).json()["release"] == "v000002"


async def search_once(one: Remote) -> httpx.Response:
    """A search that takes a while, under a key that is always the same."""
    body = {"prompt": "?\n", "search": {"budget": {"simulations": 40}}}
    return await one.http.post("/v1/search", json=body, headers={"Idempotency-Key": "the one"})


async def test_a_request_whose_replica_was_killed_is_searched_by_another_once_the_fleet_has_lost_that_one(
    url: str, root: Path, tmp_path: Path
) -> None:
    short = {"RAMIFY_FLEET__LEASE_SECONDS": str(SHORT)}
    async with a_process(url, root, tmp_path, **short, DRAW_SECONDS="0.01") as one:
        async with a_process(url, root, tmp_path, **short, DRAW_SECONDS="1") as victim:
            await until_ready(one, victim)
            lost = asyncio.create_task(search_once(victim))
            async with asyncio.timeout(60):
                while "\nramify_searches_running 1.0" not in (await victim.http.get("/metrics")).text:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert (await search_once(one)).status_code == 409
            victim.process.kill()
            with pytest.raises(httpx.HTTPError):
                await lost
        async with asyncio.timeout(60):
            while (answer := await search_once(one)).status_code == 409:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert (answer.status_code, answer.json()["status"]) == (200, "complete")
