"""Replicas of one fleet on a real PostgreSQL, their engines fake: one release everywhere, whatever happens to one."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from typer.testing import CliRunner

from contract.api.world import hold, serving, until
from contract.api.world import release as let_go
from contract.fleet.replicas import SHORT, Local, a_door, a_replica, releases_of, until_ready
from fakes_releases import write_release
from fixtures_postgres import PostgresServer
from ramify.api.app import admin_application
from ramify.cli import app
from ramify.fleet import FleetStore, Replica, Step, View
from ramify.search.run import Search
from ramify.treelog.store import parse_url, writer_engine
from ramify.treelog.writer import write_transaction
from ramify_client import AsyncAdmin, NotFound

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]
MODES = pytest.mark.parametrize("mode", ["rolling", "barrier"])


@MODES
async def test_a_release_is_activated_on_every_replica_whichever_is_asked(
    url: str, root: Path, mode: str
) -> None:
    async with a_replica(url, root) as one, a_replica(url, root) as two:
        await until_ready(one, two)
        looked_last = one.fleet.view
        done = (await two.activate("v000002", mode=mode, note="a round")).json()
        assert (done["release"], done["previous"], done["epoch"]) == ("v000002", "v000001", 2)
        assert (done["canary"]["probes"], done["canary"]["distinguishable"]) == (2, 2)
        assert [row["error"] for row in done["replicas"]] == [None, None]
        assert await releases_of(one, two) == ["v000002", "v000002"]
        for replica in (one, two):
            listing = (await replica.http.get("/v1/releases")).json()
            assert (listing["active"], listing["previous"]) == ("v000002", "v000001")
        assert [(row["release"], row["kind"], row["note"]) for row in listing["activations"]] == [
            ("v000002", "activate", "a round"),
            ("v000001", "automatic", "served until now"),
        ]
        state = await one.state()
        assert [(row["status"], row["epoch"]) for row in state["replicas"]] == [("ready", 2), ("ready", 2)]
        again = (await one.activate("v000002")).json()
        assert (again["release"], again["epoch"], one.engines.loads) == ("v000002", 2, ["v000002"])
        one.fleet.view = looked_last  # a replica serves what is committed a moment before it sees that
        back = await one.admin.post("/admin/releases/rollback", json={})
        assert back.status_code == 200, back.text
        assert (back.json()["release"], back.json()["epoch"]) == ("v000001", 3)
        assert await releases_of(one, two) == ["v000001", "v000001"]


@MODES
async def test_requests_that_come_during_an_activation_wait_and_none_fails(
    url: str, root: Path, mode: str
) -> None:
    answers: list[tuple[int, str]] = []

    async def keep_asking(one: Local) -> None:
        while True:
            reply = await one.search(search={"budget": {"simulations": 4}})
            answers.append((reply.status_code, reply.json().get("release")))

    async with a_replica(url, root) as one, a_replica(url, root) as two:
        await until_ready(one, two)
        clients = [asyncio.create_task(keep_asking(each)) for each in (one, two)]
        await until(lambda: len(answers) > 8)
        assert (await one.activate("v000002", mode=mode)).status_code == 200
        before = len(answers)
        await until(lambda: len(answers) > before + 8)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
    assert {status for status, _ in answers} == {200}
    assert {release for _, release in answers} == {"v000001", "v000002"}


async def test_with_a_barrier_nobody_answers_with_the_new_release_before_all_can(
    url: str, root: Path
) -> None:
    async with a_replica(url, root) as one, a_replica(url, root) as two:
        await until_ready(one, two)
        two.engines.loading = asyncio.Event()
        activation = asyncio.create_task(one.activate("v000002", mode="barrier"))
        await until(lambda: one.engines.serving.release == "v000002" and two.engines.loads)
        await until(lambda: one.fleet.mine.loaded == 2)
        asked = asyncio.create_task(one.search())
        await until(lambda: one.context.searches.admission.waiting)
        assert not await one.ready()
        values = await one.http.post("/v1/value", json={"prompt": "?\n", "continuations": ["a"]})
        assert (values.status_code, values.json()["error"]["code"]) == (503, "not_ready")
        assert not asked.done()
        two.engines.loading.set()
        assert (await activation).status_code == 200
        assert (await asked).json()["release"] == "v000002"


async def test_rolling_keeps_one_of_two_in_service_all_the_time(url: str, root: Path) -> None:
    ready: list[int] = []
    async with a_replica(url, root) as one, a_replica(url, root) as two:
        await until_ready(one, two)
        activation = asyncio.create_task(one.activate("v000002"))
        while not activation.done():
            await asyncio.sleep(0.01)
            ready.append(one.in_service + two.in_service)
        assert (await activation).status_code == 200
    assert min(ready) >= 1


@MODES
async def test_a_release_whose_canary_lies_goes_back_everywhere(url: str, root: Path, mode: str) -> None:
    async with a_replica(url, root) as one, a_replica(url, root) as two:
        await until_ready(one, two)
        reply = await one.activate("v000004", mode=mode)
        assert (reply.status_code, reply.json()["error"]["code"]) == (409, "activation_failed")
        assert "not the weights that were published" in reply.json()["error"]["message"]
        assert "the fleet serves v000001 as before" in reply.json()["error"]["message"]
        assert await releases_of(one, two) == ["v000001", "v000001"]
        assert not any(row["status"] == "evicted" for row in (await two.state())["replicas"])
        failed = {row["id"]: row for row in (await two.http.get("/v1/releases")).json()["data"]}["v000004"]
        assert failed["state"] == "failed"
        assert (await two.activate("v000002", mode=mode)).status_code == 200


@MODES
async def test_a_release_that_the_gate_rejects_while_it_is_activated_goes_back_and_stays_rejected(
    url: str, root: Path, mode: str
) -> None:
    async with a_replica(url, root) as one, a_replica(url, root) as two:
        await until_ready(one, two)
        one.engines.loading = two.engines.loading = asyncio.Event()
        asked = asyncio.create_task(one.activate("v000002", mode=mode))
        await until(lambda: one.engines.loads or two.engines.loads)
        verdict = {"state": "rejected", "figures": {}}
        assert (await two.admin.put("/admin/releases/v000002", json=verdict)).status_code == 200
        one.engines.loading.set()
        reply = await asked
        assert (reply.status_code, reply.json()["error"]["code"]) == (409, "activation_failed")
        assert "the gate rejected v000002" in reply.json()["error"]["message"]
        assert await releases_of(one, two) == ["v000001", "v000001"]
        assert (await two.activate("v000002")).json()["error"]["code"] == "release_rejected"


@MODES
async def test_a_replica_that_cannot_load_it_is_evicted_says_so_and_is_taken_back(
    url: str, root: Path, mode: str
) -> None:
    async with a_replica(url, root) as one, a_replica(url, root) as two:
        await until_ready(one, two)
        two.engines.broken = {"v000002"}
        assert (await one.activate("v000002", mode=mode)).status_code == 200
        await until(lambda: two.fleet.mine.serving == 0)
        refused = await two.search()
        assert refused.status_code == 503
        assert "evicted from its fleet after 3 failures" in refused.json()["error"]["message"]
        readiness = await two.http.get("/readyz")
        assert (readiness.status_code, readiness.json()["error"]["code"]) == (503, "not_ready")
        assert "\nramify_fleet_evicted 1.0" in (await two.http.get("/metrics")).text
        row = next(row for row in (await one.state())["replicas"] if row["status"] == "evicted")
        assert "told to fail" in row["error"]
        two.engines.broken = set()
        path = f"/admin/fleet/replicas/{row['id']}/restore"
        restored = await one.admin.post(path, json={})
        assert restored.status_code == 200
        assert await releases_of(one, two) == ["v000002", "v000002"]
        none = await one.admin.post(path, json={})
        assert (none.status_code, none.json()["error"]["param"]) == (404, "replica")


async def test_other_weights_under_the_same_id_are_refused_and_the_fleet_goes_on(
    url: str, root: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    for name in ("v000001", "v000003"):
        shutil.copytree(root / name, other / name)
    write_release(other, 2.5, 0.2, release_id="v000002", parent="v000001")
    async with a_replica(url, root) as one, a_replica(url, other) as two:
        await until_ready(one, two)
        assert (await one.activate("v000002")).status_code == 200
        await until(lambda: two.fleet.mine.evicted)
        assert "is another v000002 than the fleet's" in str(two.fleet.mine.error)
        assert await releases_of(one) == ["v000002"]
        assert (await one.activate("v000003")).status_code == 200
        assert await releases_of(one) == ["v000003"]


async def test_a_new_replica_serves_what_is_committed_and_one_that_lags_catches_up(
    url: str, root: Path
) -> None:
    async with a_replica(url, root) as one:
        await until_ready(one)
        assert (await one.activate("v000002")).status_code == 200
        async with a_replica(url, root) as two:
            assert await releases_of(two) == ["v000002"]
            assert two.engines.loads == []
        async with a_replica(url, root, start=1) as three:
            assert await releases_of(one, three) == ["v000002", "v000002"]
            assert three.engines.loads == ["v000002"]


async def test_a_look_that_is_under_way_while_the_engines_come_up_does_not_undo_that(
    url: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, begun, may_end = FleetStore.look, asyncio.Event(), asyncio.Event()

    async def slow(self: FleetStore, mine: Replica) -> tuple[View, Step | None]:
        begun.set()
        await may_end.wait()
        return await look(self, mine)

    monkeypatch.setattr(FleetStore, "look", slow)
    async with a_replica(url, root) as one:
        await begun.wait()
        assert one.fleet.mine.loaded == 0
        may_end.set()
        await until_ready(one)


async def test_operators_see_and_steer_the_fleet_through_the_client(url: str, root: Path) -> None:
    async with a_replica(url, root) as one:
        await until_ready(one)
        transport = httpx.ASGITransport(admin_application(one.context, None))
        async with AsyncAdmin("http://127.0.0.1", transport=transport) as admin:
            done = await admin.activate("v000002", mode="barrier")
            assert (done.epoch, [row.status for row in done.replicas or ()]) == (2, ["ready"])
            found = await admin.fleet()
            assert (found.name, found.committed.release, found.newest.mode) == (
                "letters",
                "v000002",
                "barrier",
            )
            with pytest.raises(NotFound):
                await admin.restore(found.replicas[0].id)
            with pytest.raises(NotFound):
                await admin.activate("v000009")


async def test_a_drained_replica_that_stays_holds_no_activation_up(url: str, root: Path) -> None:
    async with a_replica(url, root) as one, a_replica(url, root) as two:
        await until_ready(one, two)
        assert (await two.admin.post("/admin/drain", json={})).status_code == 200
        done = (await one.activate("v000002")).json()
        assert [row["status"] for row in done["replicas"]] == ["ready", "leaving"]
        assert (two.engines.loads, two.fleet.mine.serving) == ([], 0)


async def test_one_activation_at_a_time_and_the_same_again_waits_for_it(url: str, root: Path) -> None:
    async with a_replica(url, root) as one, a_replica(url, root) as two:
        await until_ready(one, two)
        one.engines.loading = two.engines.loading = asyncio.Event()
        first = asyncio.create_task(one.activate("v000002"))
        await until(lambda: one.engines.loads or two.engines.loads)
        other = await two.activate("v000003")
        assert (other.status_code, other.json()["error"]["code"]) == (409, "activation_in_progress")
        again = asyncio.create_task(two.activate("v000002"))
        with pytest.raises(IntegrityError, match="one_activation"):
            async with one.fleet.store._engine.begin() as conn:
                await conn.execute(
                    text(
                        "INSERT INTO epochs SELECT 9, release, content, state, mode, kind, note, "
                        "asked_by, share, grace, created_at, deadline FROM epochs WHERE number = 2"
                    )
                )
        one.engines.loading.set()
        assert (await first).json()["epoch"] == (await again).json()["epoch"] == 2


async def test_a_partitioned_replica_stops_before_the_others_pass_on_and_catches_up(
    url: str, root: Path, short: Path
) -> None:
    async with (
        a_door(short, url) as door,
        a_replica(url, root, fleet={"lease_seconds": SHORT}) as one,
        a_replica(door.url, root, fleet={"lease_seconds": SHORT}) as two,
    ):
        await until_ready(one, two)
        hold(two.engines)
        running = asyncio.create_task(two.search())
        await until(lambda: two.engines.policy.running)
        door.shut()
        assert (await one.activate("v000002", mode="barrier")).status_code == 200
        assert two.fleet.mine.loaded == 1
        assert two.context.searches.admission.standing.lapsed() is not None
        refused = await two.search()
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
        assert "its lease" in refused.json()["error"]["message"]
        let_go(two.engines)
        two.engines.policy.gate = None
        door.open.set()
        reply = await running
        assert reply.status_code == 503, "it ended when its replica might not answer any more"
        assert await releases_of(one, two) == ["v000002", "v000002"]


async def test_an_idle_replica_is_ready_by_its_looks_and_takes_no_lock_of_the_log(
    url: str, root: Path, short: Path
) -> None:
    holder = writer_engine(parse_url(url))
    async with a_door(short, url) as door, a_replica(door.url, root) as one:
        await until_ready(one)
        spool, before = one.context.searches.spool, one.context.log.commits
        async with write_transaction(holder, time.time):  # a probe that wrote would wait for it
            for _ in range(3):
                spool._wrote = spool._looked = None  # as after a second without a search
                assert await one.ready()
        assert one.context.log.commits == before
        door.shut()
        await until(lambda: not one.fleet.writes())
        spool.settings = spool.settings.model_copy(update={"deadline_seconds": 0.2})
        spool._wrote = spool._looked = None
        reply = await one.http.get("/readyz")
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "log_unavailable")
        door.open.set()
        await until_ready(one)
        assert one.context.log.commits > before, "a log that has failed proves itself by a write"
    await holder.dispose()


async def test_a_search_that_a_frozen_replica_ends_after_its_lease_is_not_answered(
    url: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its loop stood still, so that no alarm rang before the search ended."""
    async with a_replica(url, root) as one:
        await until_ready(one)
        run = Search.run

        async def late(self: Search) -> None:
            await run(self)
            one.context.searches.admission.standing.answers_until = 0.0

        monkeypatch.setattr(Search, "run", late)
        reply = await one.search()
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "not_ready")


async def test_a_completion_that_the_end_of_a_lease_stops_is_told_so(url: str, root: Path) -> None:
    async with a_replica(url, root) as one:
        await until_ready(one)
        hold(one.engines)
        running = asyncio.create_task(
            one.http.post(
                "/v1/completions", json={"model": one.context.serving.name, "prompt": "?\n", "max_tokens": 8}
            )
        )
        await until(lambda: one.engines.policy.running)
        one.context.searches.admission.standing.answers_until = 0.0
        one.fleet._lapse()
        reply = await running
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "not_ready")
        assert "its lease" in reply.json()["error"]["message"]


@pytest.mark.parametrize("fault", ["look", "step"])
async def test_a_replica_that_cannot_look_at_its_fleet_any_more_ends(
    url: str, root: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    async with a_replica(url, root) as one:
        await until_ready(one)
        activation = None
        if fault == "look":

            async def broken(self: FleetStore, mine: Replica) -> tuple[View, Step | None]:
                raise KeyError("a mistake of ours")

            monkeypatch.setattr(FleetStore, "look", broken)
        else:
            one.engines.loading = asyncio.Event()
            activation = asyncio.create_task(one.activate("v000002"))
            await until(lambda: one.engines.loads)
            assert one.fleet._work is not None
            one.fleet._work.cancel()
        async with asyncio.timeout(60):
            await one.engines.dead.wait()
        assert "the fleet cannot be looked at" in str(one.engines.dead_reason)
        assert not await one.ready()
        if activation is not None:
            one.engines.loading.set()
            activation.cancel()


@MODES
async def test_postgresql_stopped_and_started_during_an_activation_ends_it_one_way_everywhere(
    url: str, root: Path, postgres_server: PostgresServer, mode: str
) -> None:
    short = {"lease_seconds": SHORT}
    async with a_replica(url, root, fleet=short) as one, a_replica(url, root, fleet=short) as two:
        await until_ready(one, two)
        one.engines.loading = two.engines.loading = asyncio.Event()
        activation = asyncio.create_task(one.activate("v000002", mode=mode))
        await until(lambda: one.engines.loads or two.engines.loads)
        await asyncio.to_thread(postgres_server.stop)
        try:
            one.engines.loading.set()
            await until(lambda: two.context.searches.admission.standing.lapsed())
            assert not await one.ready()
            assert not await two.ready()
        finally:
            await asyncio.to_thread(postgres_server.go_on)
        assert (await activation).status_code == 200
        assert await releases_of(one, two) == ["v000002", "v000002"]


async def test_the_command_shows_where_each_replica_stands(url: str, root: Path) -> None:
    async with a_replica(url, root) as one, a_replica(url, root) as two:
        await until_ready(one, two)
        async with serving(admin_application(one.context, None)) as address:
            said = [
                await asyncio.to_thread(CliRunner().invoke, app, [*words, "--admin", address])
                for words in (
                    ["releases", "activate", "v000002", "--mode", "barrier"],
                    ["releases", "activate", "v000004"],
                    ["fleet", "status"],
                    ["fleet", "restore", "nobody"],
                )
            ]
        assert [done.exit_code for done in said] == [0, 1, 0, 1]
        shown = said[2].output
        assert "letters serves v000002 (epoch 2)" in shown
        assert "epoch 3, v000004, gone back" in shown
        assert shown.count("ready") == 2
