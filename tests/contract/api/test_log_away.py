"""A log that is full or away: nothing is computed in vain, nothing finished is lost, nothing is written twice."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fixtures_postgres import PostgresServer, postgres_server  # noqa: F401  (a fixture)
from ramify.treelog import StoreError, TreeLog

from .world import KEYS, PROMPT, World, a_world, hold, release, until

pytestmark = pytest.mark.anyio
LARGE = {"budget": {"simulations": 300}}
"""A tree of several of SQLite's pages."""
SHORT = {"wait_seconds": 0.3}
"""A spool whose callers wait no longer than a test wants to."""


async def limit_pages(log: TreeLog, extra: int) -> None:
    """Let SQLite's file grow by this many pages at most: the disk is full at 0."""
    assert log._writes is not None
    async with log._writes.connect() as conn:
        if extra == 0:  # free pages inside the file would take a small tree yet
            free = (await conn.exec_driver_sql("PRAGMA freelist_count")).scalar_one()
            await conn.exec_driver_sql("CREATE TABLE IF NOT EXISTS filler (bytes BLOB)")
            await conn.exec_driver_sql(f"INSERT INTO filler VALUES (zeroblob({(free + 1) * 4096}))")
            await conn.commit()
        pages = (await conn.exec_driver_sql("PRAGMA page_count")).scalar_one()
        await conn.exec_driver_sql(f"PRAGMA max_page_count = {pages + extra}")


def refused(answer: httpx.Response) -> str:
    """The message of a 503 that says when to come back."""
    found = answer.json()["error"]
    assert (answer.status_code, found["code"]) == (503, "log_unavailable"), answer.text
    assert int(answer.headers["retry-after"]) >= 1
    return str(found["message"])


async def a_search_in_flight(world: World, **body: Any) -> asyncio.Task[httpx.Response]:
    """A search whose engine work is held, past admission."""
    hold(world.engines)
    asked = asyncio.create_task(world.search(search=LARGE, **body))
    await until(lambda: world.engines.policy.running)
    return asked


async def a_search_that_waits(world: World, **body: Any) -> str:
    """The id of a finished search that the log, full from now on, does not take."""
    asked = await a_search_in_flight(world, **body)
    spool = world.context.searches.spool
    usual, spool.settings = spool.settings, spool.settings.model_copy(update=SHORT)
    await limit_pages(world.log, 0)
    release(world.engines)
    said = refused(await asked)
    await until(lambda: len(spool))  # the caller may have been told before the first try has failed
    spool.settings = usual
    return next(word for word in said.split() if word.startswith("srch_"))


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path) as world:
        yield world
        await limit_pages(world.log, 100_000)


async def test_a_full_disk_keeps_what_is_finished_until_there_is_room(small: World) -> None:
    search = await a_search_that_waits(small)
    refused(await small.http.get(f"/v1/search/{search}"))
    assert b"ramify_log_spooled_searches 1.0" in small.context.metrics.text()
    await limit_pages(small.log, 100_000)
    await until(lambda: not len(small.context.searches.spool))
    (row,) = await small.logged()
    assert row.tree_id == search.replace("srch_", "tree_")
    assert (await small.http.get(f"/v1/search/{search}")).json()["status"] == "complete"
    assert (await small.search()).status_code == 200


async def test_while_the_log_is_full_a_search_is_refused_before_it_costs_anything(small: World) -> None:
    await a_search_that_waits(small)
    spent = small.engines.policy.generated
    for path in ("/readyz", "/health"):
        assert "takes no writes" in refused(await small.http.get(path))
    refused(await small.search())
    chat = {"prompt": PROMPT, "search": {"budget": {"tokens": 100}}}
    refused(await small.http.post("/v1/completions", json=chat))
    assert small.engines.policy.generated == spent
    plain = await small.http.post("/v1/completions", json={"prompt": PROMPT, "max_tokens": 4})
    assert plain.status_code == 200, "plain requests need no log"
    assert (await small.http.get("/livez")).status_code == 200


async def test_a_disk_below_its_floor_takes_no_search(tmp_path: Path) -> None:
    async with a_world(tmp_path, spool={"free_bytes": 1 << 60}) as world:
        assert "MiB free" in refused(await world.search())
        refused(await world.http.get("/readyz"))
        assert world.engines.policy.generated == 0


async def test_a_kept_answer_is_given_again_while_no_search_is_taken(world: World, monkeypatch: Any) -> None:
    key = {"Idempotency-Key": "kept"}
    first = await world.search(headers=key)
    monkeypatch.setattr("ramify.service.spool.FRESH", 0)  # so that the next search looks at the disk
    monkeypatch.setattr(world.log, "free_bytes", lambda: 0)
    refused(await world.search(headers={"Idempotency-Key": "new"}))
    assert (await world.search(headers=key)).content == first.content


async def test_a_search_that_waits_for_the_log_is_hidden_from_other_keys(tmp_path: Path) -> None:
    async with a_world(tmp_path, auth={"keys": KEYS}) as world:
        path = f"/v1/search/{await a_search_that_waits(world, headers=world.as_key('bob'))}"
        assert (await world.http.get(path, headers=world.as_key("alice"))).status_code == 404
        refused(await world.http.get(path, headers=world.as_key("bob")))
        refused(await world.http.get(path, headers=world.as_key("trainer")))
        await limit_pages(world.log, 100_000)


async def test_a_log_whose_folder_has_vanished_takes_no_search(world: World, monkeypatch: Any) -> None:
    def vanished() -> int:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(world.log, "free_bytes", vanished)
    assert "takes no writes" in refused(await world.search())
    assert "takes no writes" in refused(await world.http.get("/readyz"))


async def test_a_key_that_a_failing_log_does_not_free_is_not_waited_for(
    world: World, monkeypatch: Any
) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise StoreError("the store is away")

    async def hangs(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("ramify.service.idempotency.ABANDON_SECONDS", 0.01)
    monkeypatch.setattr(world.log, "claim", fails)
    monkeypatch.setattr(world.log, "abandon", hangs)
    refused(await asyncio.wait_for(world.search(headers={"Idempotency-Key": "any"}), 60))


async def test_a_tree_that_no_database_holds_refuses_nobody_else(world: World) -> None:
    asked = await a_search_in_flight(world)
    (running,) = world.context.searches.running.values()
    running.tree.created_at = float("nan")
    release(world.engines)
    assert (await asked).status_code == 500
    assert (await world.search()).status_code == 200


async def test_a_full_spool_says_that_the_search_is_lost(tmp_path: Path) -> None:
    async with a_world(tmp_path, spool={"wait_seconds": 120, "searches": 1}) as world:
        hold(world.engines)
        asked = [asyncio.create_task(world.search(search=LARGE)) for _ in range(3)]
        await until(lambda: len(world.context.searches.running) == 3)
        await limit_pages(world.log, 0)
        release(world.engines)
        for first in itertools.islice(asyncio.as_completed(asked), 2):
            assert "could not be logged" in refused(await first)
        assert b"ramify_log_failures_total 2.0" in world.context.metrics.text()
        await limit_pages(world.log, 100_000)
        assert sorted([(await task).status_code for task in asked]) == [200, 503, 503]
        assert len(await world.logged()) == 1


async def test_a_drain_gives_up_what_the_log_never_takes(small: World, monkeypatch: Any) -> None:
    monkeypatch.setattr("ramify.service.searches.LET_GO", 0.1)
    await a_search_that_waits(small)
    await asyncio.wait_for(small.context.searches.drain(0), 60)
    assert not len(small.context.searches.spool)
    assert b"ramify_log_failures_total 1.0" in small.context.metrics.text(), "though its caller had been told"


@pytest.mark.postgres
async def test_a_database_that_went_away_gets_every_finished_search_once(
    tmp_path: Path, request: Any
) -> None:
    server: PostgresServer = request.getfixturevalue("postgres_server")
    async with a_world(tmp_path, log=server.database(), spool={"wait_seconds": 60}) as world:
        hold(world.engines)
        asked = [asyncio.create_task(world.search()) for _ in range(4)]
        await until(lambda: len(world.context.searches.running) == 4)
        server.stop()
        try:
            release(world.engines)
            await until(lambda: len(world.context.searches.spool) == 4)
            spent = world.engines.policy.generated
            refused(await world.http.get("/readyz"))
            refused(await world.search())
            assert world.engines.policy.generated == spent
            assert not any(task.done() for task in asked), "acknowledged only once they are in the log"
        finally:
            server.go_on()
        answers = [await task for task in asked]
        assert [answer.status_code for answer in answers] == [200] * 4
        logged = [row.tree_id for row in await world.logged()]
        assert sorted(logged) == sorted(answer.json()["tree"]["id"] for answer in answers)
        assert (await world.search()).status_code == 200
