"""Searches of one replica of a fleet, asked for at another: while they run, and after it has died."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.api.world import KEYS, PROMPT, events, hold, release, until
from contract.fleet.replicas import SHORT, Local, a_door, a_process, a_replica, until_ready
from fake_process import free_port
from ramify.api.app import application
from ramify.api.owners import FORWARDED
from ramify.connections import ConnectionLimits, Listener, bind
from ramify.service.owners import owner_of

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]
LONG = {"search": {"algorithm": "best_of_n", "budget": {"simulations": 10_000}, "parallel": 1}}
LIMITS = ConnectionLimits(open=256, head_bytes=16_384, head_seconds=15, body_seconds=15, idle_seconds=65)


@asynccontextmanager
async def reached(url: str, root: Path, **settings: Any) -> AsyncIterator[Local]:
    """A replica that others reach at its address."""
    port = free_port()
    fleet = {**settings.pop("fleet", {}), "address": f"http://127.0.0.1:{port}"}
    async with a_replica(url, root, fleet=fleet, **settings) as one:
        listener = Listener(application(one.context), LIMITS, grace=1)
        task = asyncio.create_task(listener.serve(sockets=[bind("127.0.0.1", port)]))
        await until(lambda: listener.started)
        try:
            yield one
        finally:
            listener.should_exit = True
            await task


async def running(replica: Local, **headers: str) -> str:
    """Begin a search that runs until its engine is released; return its id."""
    before = set(replica.context.searches.running)
    hold(replica.engines)
    asking = replica.http.post("/v1/search", json={"prompt": PROMPT, **LONG}, headers=headers)
    task = asyncio.create_task(asking)
    await until(lambda: replica.engines.policy.running or task.done())
    assert not task.done(), task.result().text
    (tree,) = set(replica.context.searches.running) - before
    return tree.replace("tree_", "srch_")


async def once_known(replica: Local, search: str) -> httpx.Response:
    """Ask for a search whose replica was killed until the fleet knows of that."""
    async with asyncio.timeout(60):
        while (told := await replica.http.get(f"/v1/search/{search}")).status_code == 409:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    return told


async def test_a_search_is_looked_at_and_cancelled_at_any_replica(url: str, root: Path) -> None:
    async with reached(url, root) as one, reached(url, root) as two:
        await until_ready(one, two)
        search = await running(two)
        state = await one.http.get(f"/v1/search/{search}", headers={"x-request-id": "asked"})
        assert (state.status_code, state.json()["status"], state.json()["id"]) == (200, "running", search)
        assert state.headers["x-request-id"] == "asked"
        assert (await one.http.get(f"/v1/search/{search}?n=1")).status_code == 400, "as the owner says it"
        ended = await one.http.post(f"/v1/search/{search}/cancel")
        assert (ended.status_code, ended.json()["status"]) == (200, "cancelled")
        assert not two.context.searches.running
        assert (await one.http.get(f"/v1/search/{search}")).json()["status"] == "cancelled"
        release(two.engines)
        longer = await one.http.post(f"/v1/search/{search}/continue", json={"budget": {"simulations": 2}})
        assert longer.status_code == 200, longer.text


async def test_a_search_is_followed_at_any_replica_and_goes_on_if_who_follows_leaves(
    url: str, root: Path
) -> None:
    async with reached(url, root) as one, reached(url, root) as two:
        await until_ready(one, two)
        search = await running(two)
        path = f"/v1/search/{search}?stream=true"
        async with httpx.AsyncClient(base_url=one.fleet.mine.address, timeout=60) as http:
            async with http.stream("GET", path) as left:
                assert left.headers["x-ramify-search-id"] == search
                assert await anext(left.aiter_lines()) == "event: search.started"
            assert two.context.searches.running
            async with http.stream("GET", path) as stream:
                lines = stream.aiter_lines()
                assert await anext(lines) == "event: search.started"
                two.context.searches.stop_all("cancelled", "client")
                told = events("\n".join([line async for line in lines]).lstrip("\n").partition("\n\n")[2])
        assert told[-1][0] == "search.completed"
        assert (told[-1][1]["id"], told[-1][1]["status"]) == (search, "cancelled")
        ended = events((await one.http.get(path)).text)
        assert [name for name, _ in ended] == ["search.started", "search.completed"]
        assert ended[-1][1]["id"] == search


async def test_whoever_follows_a_search_holds_no_other_question_up(url: str, root: Path) -> None:
    async with reached(url, root) as one, reached(url, root) as two:
        await until_ready(one, two)
        search = await running(two)
        begun: list[httpx.Response] = []

        async def note(answer: httpx.Response) -> None:
            begun.append(answer)

        one.fleet.http.event_hooks["response"].append(note)
        path = f"/v1/search/{search}"
        following = [asyncio.create_task(one.http.get(f"{path}?stream=true")) for _ in range(101)]
        await until(lambda: len(begun) == 101)
        assert (await one.http.post(f"{path}/cancel")).json()["status"] == "cancelled"
        for answer in await asyncio.gather(*following):
            assert events(answer.text)[-1][0] == "search.completed"


async def test_a_batch_and_a_completion_are_cancelled_at_any_replica(url: str, root: Path) -> None:
    async with reached(url, root) as one, reached(url, root) as two:
        await until_ready(one, two)
        hold(two.engines)
        body = {"prompts": [{"prompt": PROMPT}], "budget": {"tokens": 1000}}
        batch = asyncio.create_task(two.http.post("/v1/search/batch", json=body))
        await until(lambda: two.context.batches.running)
        (number,) = two.context.batches.running
        ended = await one.http.post(f"/v1/search/batch/{number}/cancel")
        assert (ended.status_code, ended.json()["id"]) == (200, number)
        await batch
        gone = await one.http.post(f"/v1/search/batch/{number}/cancel")
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "not_found")
        completion = {"model": two.context.serving.name, "prompt": PROMPT, "max_tokens": 8}
        asked = asyncio.create_task(two.http.post("/v1/completions", json=completion))
        await until(lambda: two.context.completions.running)
        (plain,) = two.context.completions.running
        name = next(name for name in plain.work.names if name.startswith("cmpl"))
        ended = await one.http.post(f"/v1/completions/{name}/cancel")
        assert (ended.status_code, ended.json()["cancelled"]) == (200, 1)
        assert (await asked).json()["error"]["code"] == "cancelled"


async def test_keys_are_checked_at_both_and_none_but_an_api_key_is_sent_on(url: str, root: Path) -> None:
    keys: dict[str, Any] = {"auth": {"keys": KEYS}}
    async with reached(url, root, **keys) as one, reached(url, root, **keys) as two:
        await until_ready(one, two)
        alice, bob = ({"Authorization": f"Bearer {key['key']}"} for key in KEYS[:2])
        search = await running(two, **alice)
        sent: list[httpx.Request] = []

        async def note(request: httpx.Request) -> None:
            sent.append(request)

        one.fleet.http.event_hooks["request"].append(note)
        path = f"/v1/search/{search}"
        for headers, status in (({}, 401), ({"Authorization": "Bearer the-admin-key-of-all"}, 401)):
            assert (await one.http.get(path, headers=headers)).status_code == status
        assert sent == []
        cookie = {"Cookie": "a=b", "Idempotency-Key": "k"}
        assert (await one.http.get(path, headers=alice | cookie)).status_code == 200
        assert {"cookie", "idempotency-key"}.isdisjoint(sent[0].headers)
        assert (await one.http.get(path, headers=bob)).status_code == 404
        assert len(sent) == 2
        forwarded = await one.http.get(path, headers=alice | {FORWARDED: "1"})
        assert forwarded.status_code == 409, "who was sent on is not sent on again"
        assert len(sent) == 2


async def test_an_owner_that_does_not_answer_is_named(url: str, root: Path) -> None:
    async with (
        reached(url, root) as one,
        a_replica(url, root, fleet={"address": "http://127.0.0.1:9"}) as two,
    ):
        await until_ready(one, two)
        done = (await two.search()).json()["id"]
        assert (await one.http.get(f"/v1/search/{done}")).status_code == 200, "from the log"
        number = await running(two)
        reply = await one.http.get(f"/v1/search/{number}")
        assert (reply.status_code, reply.headers["retry-after"]) == (409, "5")
        unknown = f"batch_{number.removeprefix('srch_')}"
        reply = await one.http.post(f"/v1/search/batch/{unknown}/cancel")
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "engine_unavailable")
        assert "replica 1 (http://127.0.0.1:9)" in reply.json()["error"]["message"]


async def test_a_replica_of_all_addresses_says_that_others_do_not_reach_it(
    url: str, root: Path, tmp_path: Path
) -> None:
    keys = json.dumps([{"name": "alice", "key": "alice-has-a-long-key"}])
    async with a_process(url, root, tmp_path, RAMIFY_HOST="0.0.0.0", RAMIFY_AUTH__KEYS=keys) as one:
        said = (tmp_path / "errors.txt").read_text()
        assert f"fleet.address is not set: only replicas on this machine reach {one.http.base_url}" in said


async def test_a_search_whose_replica_was_killed_goes_on_from_its_checkpoint_elsewhere(
    url: str, root: Path, tmp_path: Path
) -> None:
    short = {"RAMIFY_FLEET__LEASE_SECONDS": str(SHORT)}
    often = {"RAMIFY_CHECKPOINTS__SECONDS": "0.2"}
    async with (
        reached(url, root, fleet={"lease_seconds": SHORT}) as one,
        a_process(url, root, tmp_path, **short, **often, FAKE_SECONDS="0.05") as two,
    ):
        await until_ready(one, two)
        body = {"prompt": PROMPT, **LONG, "stream": True}
        async with two.http.stream("POST", "/v1/search", json=body) as stream:
            lines = stream.aiter_lines()
            search = stream.headers["x-ramify-search-id"]
            tree = search.replace("srch_", "tree_")
            async with asyncio.timeout(60):
                while await one.context.log.checkpoint_owner(tree) is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            path = f"{one.fleet.mine.address}/v1/search/{search}?stream=true"
            async with httpx.AsyncClient(timeout=60) as http, http.stream("GET", path) as followed:
                told = followed.aiter_lines()
                assert await anext(told) == "event: search.started"
                two.process.kill()
                with pytest.raises(httpx.RemoteProtocolError):
                    async for _ in lines:
                        pass
                last = [line async for line in told if line][-2:]
            assert last[0] == "event: error"
            assert "replica 1" in last[1]
        told = await one.http.get(f"/v1/search/{search}")
        assert (told.status_code, told.json()["error"]["code"]) == (409, "conflict")
        assert "has just ended" in told.json()["error"]["message"]
        told = await once_known(one, search)
        assert (told.status_code, told.json()["status"]) == (200, "interrupted")
        spent = told.json()["usage"]["simulations"]
        longer = await one.http.post(
            f"/v1/search/{search}/continue", json={"budget": {"simulations": spent + 5}}
        )
        assert (longer.status_code, longer.json()["continues"]) == (200, search), longer.text


async def test_a_search_whose_replica_was_killed_before_a_checkpoint_is_told_to_be_lost(
    url: str, root: Path, tmp_path: Path
) -> None:
    short = {"RAMIFY_FLEET__LEASE_SECONDS": str(SHORT)}
    async with (
        reached(url, root, fleet={"lease_seconds": SHORT}) as one,
        a_process(url, root, tmp_path, **short, FAKE_SECONDS="0.05") as two,
    ):
        await until_ready(one, two)
        body = {"prompt": PROMPT, **LONG, "stream": True}
        async with two.http.stream("POST", "/v1/search", json=body) as stream:
            search = stream.headers["x-ramify-search-id"]
            two.process.kill()
        path = f"/v1/search/{search}"
        assert (await one.http.get(path)).status_code == 409
        told = await once_known(one, search)
        for reply in (told, await one.http.post(f"{path}/continue", json={})):
            assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")
            assert "replica 1" in reply.json()["error"]["message"]
        for never in ("0" * 30, "f" * 30):
            told = await one.http.get(f"/v1/search/srch_{never}01")
            assert (told.status_code, "replica" in told.json()["error"]["message"]) == (404, False)


async def test_a_search_whose_replica_ends_while_it_is_asked_is_told_to_be_lost(
    url: str, root: Path, tmp_path: Path
) -> None:
    asked = asyncio.Event()

    async def hang_up_once_it_counts_as_ended(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await until(lambda: owner_of(one.fleet.view, one.fleet.mine, search) is None)
        writer.close()

    async with await asyncio.start_server(hang_up_once_it_counts_as_ended, "127.0.0.1", 0) as door:
        address = f"http://127.0.0.1:{door.sockets[0].getsockname()[1]}"
        theirs = {"RAMIFY_FLEET__LEASE_SECONDS": str(SHORT), "RAMIFY_FLEET__ADDRESS": address}
        theirs |= {"RAMIFY_CHECKPOINTS__SECONDS": "0", "FAKE_SECONDS": "0.05"}
        async with (
            reached(url, root, fleet={"lease_seconds": SHORT}) as one,
            a_process(url, root, tmp_path, **theirs) as two,
        ):
            await until_ready(one, two)
            body = {"prompt": PROMPT, **LONG, "stream": True}
            async with two.http.stream("POST", "/v1/search", json=body) as stream:
                search = stream.headers["x-ramify-search-id"]
                asking = asyncio.create_task(one.http.post(f"/v1/search/{search}/cancel"))
                await asyncio.wait_for(asked.wait(), 60)
                two.process.kill()
            told = await asking
            assert (told.status_code, told.json()["error"]["code"]) == (404, "not_found")
            assert f"replica 1 ({address})" in told.json()["error"]["message"]


async def test_a_replica_whose_number_was_given_away_while_it_was_cut_off_ends(
    url: str, root: Path, short: Path
) -> None:
    fleet = {"lease_seconds": SHORT}
    async with a_door(short, url) as door, a_replica(door.url, root, replica=7, fleet=fleet) as one:
        await until_ready(one)
        door.shut()
        await until(one.context.searches.admission.standing.lapsed)
        async with a_replica(url, root, replica=7, fleet=fleet) as two:
            await until_ready(two)
            door.open.set()
            async with asyncio.timeout(60):
                await one.engines.dead.wait()
            assert "got its number 7" in str(one.engines.dead_reason)
            assert not two.engines.dead.is_set()
