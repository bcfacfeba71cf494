"""Waits of an activation for others, and of others for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from .site import Site, a_site
from .world import hold, release, until

pytestmark = pytest.mark.anyio


async def test_searches_that_run_end_first_and_those_that_come_wait(site: Site) -> None:
    hold(site.engines)
    running = [asyncio.create_task(site.search(include_tree=True)) for _ in range(32)]
    await until(lambda: len(site.context.searches.running) == 32)
    activation = asyncio.create_task(site.activate("v000002", deadline_seconds=60))
    await until(lambda: site.context.searches.admission.paused)
    late = [asyncio.create_task(site.search(include_tree=True)) for _ in range(8)]
    await until(lambda: site.context.searches.admission.waiting == 8)
    for path in ("/livez", "/readyz", "/version", "/v1/trees", "/v1/releases"):
        assert (await site.http.get(path)).status_code == 200
    assert site.engines.loads == []
    release(site.engines)
    replies = [(await task).json() for task in (*running, *late)]
    assert (await activation).status_code == 200
    assert {reply["status"] for reply in replies} == {"complete"}
    for reply, expected in zip(replies, ["v000001"] * 32 + ["v000002"] * 8, strict=True):
        nodes = {node["release"] for node in reply["tree_document"]["nodes"][1:]}
        assert {reply["release"], *nodes} == {expected}


async def test_a_search_that_outlasts_the_deadline_is_drained_and_answered(site: Site) -> None:
    budget = {"budget": {"simulations": 10_000, "tokens": 200_000}}
    running = asyncio.create_task(site.search(search=budget))
    await until(lambda: site.engines.policy.generated > 50)
    hold(site.engines)
    assert (await site.activate("v000002", deadline_seconds=0.05)).status_code == 200
    reply = (await running).json()
    assert (reply["status"], reply["stop_reason"], reply["release"]) == ("drained", "drain", "v000001")
    release(site.engines)
    assert await site.served() == "v000002"


async def test_what_waits_too_long_is_503_with_retry_after(tmp_path: Path) -> None:
    async with a_site(tmp_path, admission={"queue_seconds": 0.05}) as site:
        site.engines.loading = asyncio.Event()
        activation = asyncio.create_task(site.activate("v000002"))
        await until(lambda: site.engines.loads)
        reply = await site.search()
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "server_full")
        assert "being activated" in reply.json()["error"]["message"]
        assert 1 <= int(reply.headers["retry-after"]) <= 10
        site.engines.loading.set()
        assert (await activation).status_code == 200
        assert await site.served() == "v000002"


async def test_one_activation_at_a_time(site: Site) -> None:
    site.engines.loading = asyncio.Event()
    first = asyncio.create_task(site.activate("v000002"))
    await until(lambda: site.engines.loads)
    second = await site.activate("v000003")
    assert (second.status_code, second.json()["error"]["code"]) == (409, "activation_in_progress")
    site.engines.loading.set()
    assert (await first).status_code == 200
    assert await site.served() == "v000002"


async def test_an_operator_who_hangs_up_does_not_leave_it_half_way(site: Site) -> None:
    site.engines.loading = asyncio.Event()
    asked = asyncio.create_task(site.activate("v000002"))
    await until(lambda: site.engines.loads)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    site.engines.loading.set()
    await until(lambda: not site.context.releases.busy)
    assert await site.served() == "v000002"


async def test_engines_that_never_rest_are_left_alone(site: Site) -> None:
    site.engines.never_idle = True
    assert "as before" in (await site.activate("v000002")).json()["error"]["message"]
    assert site.engines.loads == []
    assert await site.served() == "v000001"
