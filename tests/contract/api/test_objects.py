"""A server whose trees lie in a bucket: nothing acknowledged is lost while the bucket goes away and comes back."""

from __future__ import annotations

import asyncio
import itertools
import time
from pathlib import Path
from typing import Any

import pytest

from fixtures_objects import S3Server, s3_server  # noqa: F401  (a fixture)
from fixtures_postgres import postgres_server  # noqa: F401  (a fixture)
from ramify.objects import open_store
from ramify.treelog import TreeLog
from ramify_trainer.loop.puller import Puller

from .client_servers import served
from .test_log_away import refused
from .world import World, a_world, hold, release, until

pytestmark = pytest.mark.anyio
SMALL = {"budget": {"simulations": 4}}


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def rows(request: Any, tmp_path: Path) -> str:
    """The URL of the log's rows."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/trees.db"
    database: str = request.getfixturevalue("postgres_server").database()
    return database


def objects(server: S3Server, **fields: Any) -> dict[str, Any]:
    """Settings of a bucket that is soon known to be away."""
    return {"trees": server.bucket(), "endpoint": server.endpoint, "retries": 0, "seconds": 5.0, **fields}


async def test_searches_that_end_while_the_bucket_is_away_are_answered_once_they_are_in_the_log(
    rows: str,
    tmp_path: Path,
    s3_server: S3Server,  # noqa: F811
) -> None:
    async with a_world(tmp_path, log=rows, objects=objects(s3_server), spool={"wait_seconds": 60}) as world:
        hold(world.engines)
        asked = [asyncio.create_task(world.search(search=SMALL)) for _ in range(4)]
        await until(lambda: len(world.context.searches.running) == 4)
        s3_server.doorway.shut()
        try:
            release(world.engines)
            await until(lambda: len(world.context.searches.spool) == 4)
            spent = world.engines.policy.generated
            refused(await world.http.get("/readyz"))
            refused(await world.search())
            assert world.engines.policy.generated == spent
            assert not any(task.done() for task in asked), "acknowledged only once they are in the log"
            assert await world.logged() == []
        finally:
            s3_server.doorway.open()
        answers = [await task for task in asked]
        assert [answer.status_code for answer in answers] == [200] * 4
        logged = [row.tree_id for row in await world.logged()]
        assert sorted(logged) == sorted(answer.json()["tree"]["id"] for answer in answers)
        assert (await world.search()).status_code == 200
        assert (await world.http.get("/readyz")).status_code == 200


async def _ask(world: World, name: str, enough: asyncio.Event) -> dict[str, str]:
    """Search until told that it is enough; the ids of acknowledged trees by Idempotency-Key."""
    acknowledged = {}
    for number in itertools.count():
        key = f"{name}:{number}"
        answer = await world.search(search=SMALL, headers={"Idempotency-Key": key})
        if answer.status_code == 200:
            acknowledged[key] = answer.json()["tree"]["id"]
        else:
            refused(answer)
            await asyncio.sleep(0.01)
        if enough.is_set():
            return acknowledged
    raise AssertionError("never")


async def test_every_acknowledged_search_is_read_once_by_everybody_through_three_outages(
    rows: str,
    tmp_path: Path,
    s3_server: S3Server,  # noqa: F811
) -> None:
    async with served(tmp_path, log=rows, objects=objects(s3_server)) as (client, world):
        enough = asyncio.Event()
        clients = [asyncio.create_task(_ask(world, str(i), enough)) for i in range(4)]
        for round_ in range(1, 4):
            await until(lambda: world.log.commits > 12 * round_)  # noqa: B023  (awaited at once)
            s3_server.doorway.shut()
            await until(lambda: len(world.context.searches.spool) > 0)
            s3_server.doorway.open()
            await until(lambda: len(world.context.searches.spool) == 0)
        enough.set()
        acknowledged = {key: tree for client in clients for key, tree in (await client).items()}
        trees = set(acknowledged.values())
        assert len(trees) == len(acknowledged) >= 12

        reader = Puller(client, "trainer", "me", tmp_path / "quarantine")
        await reader.open()
        pulled = [record.tree["id"] async for record in reader.read() if record.tree]
        assert len(pulled) == len(set(pulled)), "none twice"
        assert trees <= set(pulled)
        assert reader.quarantined == 0
        key, tree = next(iter(acknowledged.items()))
        assert (await world.http.get(f"/v1/trees/{tree}")).json()["tree"]["id"] == tree
        again = await world.search(search=SMALL, headers={"Idempotency-Key": key})
        assert again.json()["tree"]["id"] == tree
        said = await world.http.post(f"/v1/trees/{tree}/feedback", json={"outcome": 1.0})
        assert said.status_code == 200
        assert (await world.log.verify()).ok


async def test_retention_removes_rows_and_then_their_objects(tmp_path: Path, s3_server: S3Server) -> None:  # noqa: F811
    options = objects(s3_server, grace_seconds=60)
    store = open_store(options["trees"], s3_server.options())

    def stored() -> int:
        return sum(len(page) for page in store.find("trees"))

    async with a_world(tmp_path, objects=options, retention={"bytes": 0}) as world:
        for _ in range(3):
            assert (await world.search(search=SMALL)).status_code == 200
        store.create(f"trees/ab/{'ab' * 32}", b"of a write that was cut short")
        assert await asyncio.to_thread(stored) == 4
        await world.context.retention.once()
        assert await world.logged() == []
        assert await asyncio.to_thread(stored) == 1, "young"
    async with await TreeLog.open(
        f"sqlite:///{tmp_path}/trees.db",
        objects=s3_server.options(**options),
        clock=lambda: time.time() + 3600,
    ) as log:
        assert await log.sweep() == 1
        assert await asyncio.to_thread(stored) == 0
