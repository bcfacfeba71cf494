"""Waits of an activation for others, and of others for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes_releases import write_release
from ramify.weights import SearchDefaults

from .site import Site, a_site
from .world import PROMPT, hold, release, until

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


BEFORE = SearchDefaults(search={"algorithm": "best_of_n"})
AFTER = SearchDefaults(search={"algorithm": "mcts", "kappa": 0.5, "width": 5})


@pytest.fixture
async def changing(tmp_path: Path) -> AsyncIterator[Site]:
    """A server of one search at a time, whose next release is searched otherwise."""
    write_release(tmp_path / "weights", 1.0, 0.1, search=[BEFORE])
    write_release(tmp_path / "weights", 2.0, 0.2, parent="v000001", search=[AFTER])
    async with a_site(tmp_path, admission={"searches": 1}) as site:
        yield site


async def test_a_search_that_has_waited_is_searched_as_the_release_says_that_is_served_then(
    changing: Site,
) -> None:
    hold(changing.engines)
    first = asyncio.create_task(changing.search())
    await until(lambda: changing.context.searches.running)
    waiting = asyncio.create_task(changing.search(headers={"Idempotency-Key": "once"}))
    await until(lambda: changing.context.searches.admission.waiting)
    activation = asyncio.create_task(changing.activate("v000002", deadline_seconds=60))
    await until(lambda: changing.context.searches.admission.paused)
    release(changing.engines)
    before, after = (await first).json(), (await waiting).json()
    assert (await activation).status_code == 200
    assert before["defaults"] == {"source": "v000001", "search": BEFORE.search, "sampling": {}}
    assert after["defaults"] == {"source": "v000002", "search": AFTER.search, "sampling": {}}
    again = (await changing.search(headers={"Idempotency-Key": "once"})).json()
    assert again["id"] == after["id"]


async def test_what_it_may_spend_is_what_it_has_reserved(changing: Site) -> None:
    hold(changing.engines)
    searches = changing.context.searches
    first = asyncio.create_task(changing.search())
    await until(lambda: searches.running)
    budget = {"budget": {"simulations": 2}}
    waiting = asyncio.create_task(changing.search(search=budget, include_tree=True))
    await until(lambda: searches.admission.waiting)
    reserved = searches.admission.wanted
    activation = asyncio.create_task(changing.activate("v000002", deadline_seconds=60))
    await until(lambda: searches.admission.paused)
    release(changing.engines)
    await asyncio.gather(first, activation)
    params = (await waiting).json()["tree_document"]["params"]
    assert (params["algorithm"], params["budget"]["tokens"]) == ("mcts", reserved)


async def test_so_is_a_batch(changing: Site) -> None:
    hold(changing.engines)
    first = asyncio.create_task(changing.search())
    await until(lambda: changing.context.searches.running)
    body = {"prompts": [{"prompt": PROMPT}, {"prompt": PROMPT + "a"}], "budget": {"tokens": 200}}
    waiting = asyncio.create_task(changing.http.post("/v1/search/batch", json=body))
    await until(lambda: changing.context.searches.admission.waiting)
    activation = asyncio.create_task(changing.activate("v000002", deadline_seconds=60))
    await until(lambda: changing.context.searches.admission.paused)
    release(changing.engines)
    await asyncio.gather(first, activation)
    batch = (await waiting).json()
    trees = [await changing.log.get(one["tree"]["id"]) for one in batch["results"]]
    assert {tree.tree().defaults.source for tree in trees if tree is not None} == {"v000002"}
    assert {tree.tree().batch for tree in trees if tree is not None} == {batch["id"]}


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
