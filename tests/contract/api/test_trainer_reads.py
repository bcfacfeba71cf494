"""Collecting and pulling, against a whole server around a fake model."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter, ValidationError

from ramify.api.app import application
from ramify.treelog.rows import compress, decompress
from ramify_client import AsyncClient, ConnectionFailed
from ramify_client.results import LogRecord
from ramify_trainer.config import CollectConfig
from ramify_trainer.errors import CollectionFailed, TrainerError
from ramify_trainer.loop.collection import collect, problems_of
from ramify_trainer.loop.puller import Puller

from .client_servers import served
from .world import KEYS, PROMPT, World, a_world

pytestmark = pytest.mark.anyio
SMALL = CollectConfig(problems=6, concurrency=3, search={"algorithm": "mcts", "budget": {"simulations": 2}})


def small(folder: Path, **changes: Any) -> CollectConfig:
    """Six problems that the fake model can be asked."""
    rows = folder / "rows.jsonl"
    rows.write_text(
        "".join(
            f'{{"prompt": {json.dumps(PROMPT)}, "answer": "{i}", "verifier": "exact"}}\n' for i in range(6)
        )
    )
    return SMALL.model_copy(update={"data": str(rows), **changes})


def as_key(world: World, name: str) -> AsyncClient:
    """Asks with the key of this name."""
    transport = httpx.ASGITransport(application(world.context), raise_app_exceptions=False)
    (key,) = (k["key"] for k in KEYS if k["name"] == name)
    return AsyncClient("http://127.0.0.1:8000", str(key), transport=transport)


def puller(client: AsyncClient, folder: Path, owner: str = "me") -> Puller:
    return Puller(client, "trainer", owner, folder / "quarantine")


async def test_20_every_problem_of_a_round_is_searched_once_however_often_it_is_collected(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as (client, world):
        told: list[tuple[int, int]] = []
        first = await collect(client, small(tmp_path), "run", 1, 7, lambda *done: told.append(done))
        again = await collect(client, small(tmp_path), "run", 1, 7, lambda *_: None)
        assert (first.searches, again.searches, len(await world.logged())) == (6, 6, 6)
        assert told[-1] == (6, 6)
        assert first.ended == {"complete": 6}
        await collect(client, small(tmp_path), "run", 2, 7, lambda *_: None)
        assert len(await world.logged()) == 12


async def test_problems_that_share_a_budget_are_collected_once_too(tmp_path: Path) -> None:
    search = {"algorithm": "best_of_n", "budget": {"tokens": 40, "simulations": 50}}
    config = small(tmp_path, batch=4, search=search)
    async with served(tmp_path) as (client, world):
        told: list[tuple[int, int]] = []
        first = await collect(client, config, "run", 1, 7, lambda *done: told.append(done))
        again = await collect(client, config, "run", 1, 7, lambda *_: None)
        rows = await world.logged()
        assert (first.searches, again.searches, len(rows)) == (6, 6, 6)
        assert told == [(4, 6), (6, 6)] or told == [(2, 6), (6, 6)]
        assert first.tokens <= 6 * 40
        trees = [entry.tree() for row in rows if (entry := await world.log.get(row.tree_id))]
        assert sorted(Counter(tree.batch for tree in trees).values()) == [2, 4]
        assert {tree.params.early_stop for tree in trees} == {"off"}


def test_a_batch_without_tokens_to_share_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"batch shares search\.budget\.tokens"):
        CollectConfig(batch=4, search={"budget": {"simulations": 2}})


@pytest.mark.parametrize(("given", "asked"), [({}, "off"), ({"early_stop": "verified"}, "verified")])
async def test_a_collection_looks_on_after_a_right_answer_unless_it_is_told_to_stop(
    tmp_path: Path, given: dict[str, Any], asked: str
) -> None:
    search = {"grader": "verifier", "budget": {"simulations": 2}, **given}
    async with served(tmp_path) as (client, world):
        await collect(client, small(tmp_path, problems=1, search=search), "run", 1, 7, lambda *_: None)
        (row,) = await world.logged()
        entry = await world.log.get(row.tree_id)
        assert entry is not None
        assert entry.tree().params.early_stop == asked


async def test_a_stopped_collection_goes_on_and_misses_none(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, world):
        some = asyncio.Event()

        def seen(done: int, _: int) -> None:
            if done == 2:
                some.set()

        running = asyncio.create_task(collect(client, small(tmp_path), "run", 1, 7, seen))
        await asyncio.wait_for(some.wait(), 20)
        running.cancel()
        await asyncio.wait([running])
        await collect(client, small(tmp_path), "run", 1, 7, lambda *_: None)
        complete = [tree for tree in await world.logged() if tree.status == "complete"]
        assert len(complete) == 6


def test_rounds_have_their_own_problems_of_the_train_split() -> None:
    one, two = problems_of(SMALL, 7, 1), problems_of(SMALL, 7, 2)
    assert {e.id for e in one}.isdisjoint(e.id for e in two)
    assert [e.id for e in one] == [e.id for e in problems_of(SMALL, 7, 1)]


async def test_a_server_that_refuses_ends_the_collection_with_its_reason(tmp_path: Path) -> None:
    wrong = small(tmp_path, search={"algorithm": "astrology"})
    async with served(tmp_path) as (client, _):
        with pytest.raises(CollectionFailed, match="0 of 6 searched: 400"):
            await collect(client, wrong, "run", 1, 7, lambda *_: None)


async def test_20_the_cursor_moves_only_when_told_and_nothing_is_read_twice_after_that(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as (client, _):
        found = await client.search(PROMPT, search={"budget": {"simulations": 2}})
        await client.trees.feedback(found.tree.id, 0.0)
        reader = puller(client, tmp_path)
        await reader.open()
        read = [pulled async for pulled in reader.read()]
        assert [(p.tree is not None, p.feedback and p.feedback.outcome) for p in read] == [
            (True, None),
            (False, 0.0),
        ]
        assert found.answer is not None
        assert read[1].feedback.node == found.answer.node
        assert (reader.backlog, reader.cursor) == (2, 0)
        assert len([p async for p in reader.read()]) == 2
        await reader.advance(read[-1].seq)
        later = puller(client, tmp_path)
        await later.open()
        assert (later.cursor, [p async for p in later.read()]) == (2, [])


async def test_only_verdicts_of_keys_that_may_teach_are_learned_from(tmp_path: Path) -> None:
    async with served(tmp_path, auth={"keys": KEYS}) as (_, world):
        for name in ("alice", "bob"):
            async with as_key(world, name) as asker:
                found = await asker.search(PROMPT, search={"budget": {"simulations": 2}})
                await asker.trees.feedback(found.tree.id, 1.0)
        async with as_key(world, "trainer") as client:
            reader = puller(client, tmp_path)
            await reader.open()
            read = [pulled async for pulled in reader.read()]
        assert [p.feedback.source for p in read if p.feedback] == ["human"]
        assert [p.tree_id for p in read if p.feedback] == [found.tree.id]
        assert reader.quarantined == 0


async def test_two_trainers_cannot_read_under_one_name(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, _):
        await puller(client, tmp_path, "first").open()
        with pytest.raises(TrainerError, match="another trainer's"):
            await puller(client, tmp_path, "second").open()


async def test_a_cursor_that_was_moved_by_another_is_not_moved_again(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, _):
        await client.search(PROMPT, search={"budget": {"simulations": 2}})
        old, new = puller(client, tmp_path), puller(client, tmp_path)
        await old.open()
        await new.open()
        await new.advance(1)
        with pytest.raises(TrainerError, match="stale_version"):
            await old.advance(1)


class LosesAnswers(httpx.ASGITransport):
    """Passes a PUT on and loses its answer, once `armed`."""

    armed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await super().handle_async_request(request)
        if self.armed and request.method == "PUT":
            self.armed = False
            raise httpx.ReadError("the connection broke")
        return answer


async def test_a_change_whose_answer_was_lost_is_not_taken_for_another_trainers(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        transport = LosesAnswers(application(world.context))
        async with AsyncClient("http://127.0.0.1:8000", transport=transport) as client:
            await client.search(PROMPT, search={"budget": {"simulations": 2}})
            reader = puller(client, tmp_path)
            transport.armed = True
            with pytest.raises(ConnectionFailed):
                await reader.open()
            await reader.open()
            transport.armed = True
            with pytest.raises(ConnectionFailed):
                await reader.advance(1)
            await reader.advance(1)
            assert (reader.cursor, reader.leased) == (1, True)
            transport.armed = True
            with pytest.raises(ConnectionFailed):
                await reader.renew()
            held = await world.log.get_consumer("trainer")
            assert held is not None
            await world.log.put_consumer("trainer", version=held.version, owner="me")  # gives its lease back
            await world.log.delete_consumer("trainer")
            await puller(client, tmp_path, "another").open()
            with pytest.raises(TrainerError, match="another has changed it"):
                await reader.renew()


@pytest.mark.parametrize(
    "record",
    [
        {"kind": "tree", "tree": {"schema_version": 99}},
        {"kind": "outcome", "outcome": 2.0, "source": "human", "created_at": 1.0},
        {"kind": "outcome", "outcome": 1.0, "source": "oracle", "train": True, "created_at": 1.0},
    ],
    ids=["a tree of another schema", "a verdict outside its range", "a verdict of nobody known"],
)
async def test_what_is_no_tree_is_set_aside_and_counted(tmp_path: Path, record: dict[str, object]) -> None:
    async with served(tmp_path) as (client, _):
        reader = puller(client, tmp_path)
        line: LogRecord = TypeAdapter(LogRecord).validate_python({"seq": 3, "tree_id": "tree_x", **record})
        assert reader._readable(line) is None
        assert reader.quarantined == 1
        (kept,) = (tmp_path / "quarantine").iterdir()
        assert json.loads(kept.read_text())["record"]["seq"] == 3


async def test_a_corrupt_row_is_said_counted_and_passed_by_every_reader(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, world):
        ids = [(await client.search(PROMPT, search={"budget": {"simulations": 2}})).tree.id for _ in range(3)]
        reader = puller(client, tmp_path)
        await reader.open()
        await flip_a_bit(world, ids[1])
        assert [pulled.tree_id async for pulled in reader.read()] == [ids[0], ids[2]]
        assert (reader.quarantined, reader.last_read) == (1, 3)
        (kept,) = (tmp_path / "quarantine").iterdir()
        assert "corrupt in the log" in json.loads(kept.read_text())["error"]
        assert await reader.tree_with_feedback(ids[1]) == []
        lines = [json.loads(line) for line in (await world.http.get("/v1/trees?after=0")).text.splitlines()]
        assert [line["kind"] for line in lines] == ["tree", "corrupt", "tree"]
        assert set(lines[1]) == {"seq", "kind", "tree_id", "reason"}
        for path in (f"/v1/trees/{ids[1]}", f"/v1/trees/{ids[1]}?format=dot", f"/v1/search/{ids[1]}"):
            answer = await world.http.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (500, "tree_corrupt")
            assert ids[1] in answer.json()["error"]["message"]
        assert len((await world.http.get("/v1/trees")).json()["data"]) == 3
        assert [bad.tree_id for bad in (await world.log.verify()).bad] == [ids[1]]
        assert (await world.http.delete(f"/v1/trees/{ids[1]}")).status_code == 200


async def test_a_corrupt_tree_of_another_key_is_not_found_like_any_other_of_its_trees(keyed: World) -> None:
    tree = (await keyed.search(headers=keyed.as_key("alice"))).json()["tree"]["id"]
    await flip_a_bit(keyed, tree)
    for name, status in (("bob", 404), ("alice", 500), ("trainer", 500)):
        for path in (f"/v1/trees/{tree}", f"/v1/search/{tree}"):
            assert (await keyed.http.get(path, headers=keyed.as_key(name))).status_code == status
    for action, body in (("branch", {"node": 0}), ("feedback", {"outcome": 1})):
        answer = await keyed.http.post(f"/v1/trees/{tree}/{action}", json=body, headers=keyed.as_key("bob"))
        assert answer.status_code == 404


async def flip_a_bit(world: World, tree_id: str) -> None:
    """In the middle of a tree's text, behind the log's back; a bit of the compressed body may mean nothing."""
    with sqlite3.connect(world.log.store.path or "") as conn:
        (body,) = conn.execute("SELECT body FROM trees WHERE tree_id = ?", (tree_id,)).fetchone()
        spoilt = bytearray(decompress(body))
        spoilt[len(spoilt) // 2] ^= 0x10
        conn.execute("UPDATE trees SET body = ? WHERE tree_id = ?", (compress(bytes(spoilt)), tree_id))
