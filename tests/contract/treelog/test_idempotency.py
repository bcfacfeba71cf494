from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from fixtures_postgres import PostgresServer, postgres_server  # noqa: F401  (a fixture)
from ramify.treelog import Claim, KeptAnswer, StoreError, TreeLog, kept_answer
from treelog_trees import make_tree

pytestmark = pytest.mark.anyio


def _answer(search_id: str = "srch_1", **fields: Any) -> KeptAnswer:
    return kept_answer("alice", "round-1", search_id, b'{"answer":"24"}', **fields)


async def test_a_key_is_claimed_once_and_replays_its_answer(log: TreeLog) -> None:
    assert await log.claim("alice", "round-1", "hash", "srch_1") == Claim("new", "srch_1")
    assert await log.claim("alice", "round-1", "hash", "srch_2") == Claim("running", "srch_1")
    assert await log.finish(_answer())
    assert await log.claim("alice", "round-1", "hash", "srch_3") == Claim(
        "answered", "srch_1", b'{"answer":"24"}'
    )


async def test_no_write_waits_for_a_thread_that_others_hold(log: TreeLog) -> None:
    """As when every thread of the event loop asks an object store that hangs."""
    go_on = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        asyncio.get_running_loop().set_default_executor(pool)
        held = asyncio.get_running_loop().run_in_executor(None, go_on.wait)
        try:
            async with asyncio.timeout(10):
                assert (await log.claim("alice", "round-1", "hash", "srch_1")).state == "new"
                assert await log.append(make_tree(), answer=_answer()) == 1
                replayed = await log.claim("alice", "round-1", "hash", "srch_2")
        finally:
            go_on.set()
            await held
    assert replayed.body == b'{"answer":"24"}'


async def test_of_many_claims_at_once_one_is_new(log: TreeLog) -> None:
    claims = await asyncio.gather(*(log.claim("alice", "k", "hash", f"srch_{i}") for i in range(20)))
    assert claims == [Claim("new", "srch_0")] + [Claim("running", "srch_0")] * 19


async def test_another_body_under_a_used_key_conflicts(log: TreeLog) -> None:
    await log.claim("alice", "round-1", "hash", "srch_1")
    assert await log.claim("alice", "round-1", "other", "srch_2") == Claim("other_body", "srch_1")
    await log.finish(_answer())
    assert await log.claim("alice", "round-1", "other", "srch_2") == Claim("other_body", "srch_1")


async def test_a_claim_of_a_process_that_is_known_to_have_ended_is_free_and_keeps_no_answer(
    log: TreeLog,
) -> None:
    await log.claim("alice", "round-1", "hash", "srch_1")
    await log.claim("alice", "round-2", "hash", "srch_2")
    await log.finish(_answer())
    log.ended = lambda: {log.boot_id}
    assert (await log.claim("alice", "round-1", "hash", "srch_3")).state == "answered"
    assert await log.claim("alice", "round-2", "other", "srch_3") == Claim("new", "srch_3")
    assert not await log.finish(replace(_answer("srch_2"), key="round-2"))


@pytest.mark.postgres
async def test_a_claim_that_cannot_be_freed_while_the_database_is_away_is_freed_once_it_is_back(
    postgres_server: PostgresServer,  # noqa: F811
) -> None:
    async with await TreeLog.open(postgres_server.database()) as log:
        await log.claim("alice", "round-1", "hash", "srch_1")
        postgres_server.stop()
        freeing = log.free("alice", "round-1", "srch_1")
        with pytest.raises(StoreError):
            await log.abandon("alice", "round-1", "srch_1")
        assert not freeing.done()
        postgres_server.go_on()
        await asyncio.wait_for(freeing, 60)
        assert await log.claim("alice", "round-1", "hash", "srch_2") == Claim("new", "srch_2")


async def test_keys_of_different_callers_do_not_meet(log: TreeLog) -> None:
    await log.claim("alice", "round-1", "hash", "srch_1")
    assert await log.claim("bob", "round-1", "hash", "srch_2") == Claim("new", "srch_2")


async def test_an_abandoned_key_is_free_and_an_answered_one_is_not_abandoned(log: TreeLog) -> None:
    await log.claim("alice", "round-1", "hash", "srch_1")
    assert not await log.abandon("alice", "round-1", "srch_2")
    assert await log.abandon("alice", "round-1", "srch_1")
    assert await log.claim("alice", "round-1", "hash", "srch_2") == Claim("new", "srch_2")
    await log.finish(_answer("srch_2"))
    assert not await log.abandon("alice", "round-1", "srch_2")


async def test_a_claim_runs_out_and_its_late_search_no_longer_answers(log: TreeLog, clock: Any) -> None:
    await log.claim("alice", "round-1", "hash", "srch_1", seconds=60)
    clock.advance(60)
    assert await log.claim("alice", "round-1", "hash", "srch_2") == Claim("new", "srch_2")
    assert not await log.finish(_answer("srch_1"))
    assert await log.claim("alice", "round-1", "hash", "srch_3") == Claim("running", "srch_2")


async def test_a_kept_answer_runs_out(log: TreeLog, clock: Any) -> None:
    await log.claim("alice", "round-1", "hash", "srch_1")
    await log.finish(_answer(keep_seconds=100))
    clock.advance(100)
    assert (await log.expire(keep_newest=10)).claims == 1
    assert await log.claim("alice", "round-1", "hash", "srch_2") == Claim("new", "srch_2")


async def test_an_answer_is_kept_with_its_tree_or_not_at_all(log: TreeLog) -> None:
    await log.claim("alice", "round-1", "hash", "srch_1")
    tree = make_tree(id="tree_1")
    await log.append(tree, "alice", answer=_answer())
    assert await log.claim("alice", "round-1", "hash", "srch_2") == Claim(
        "answered", "srch_1", b'{"answer":"24"}'
    )


async def test_deleting_a_tree_deletes_the_answer_kept_of_it(log: TreeLog) -> None:
    await log.claim("alice", "round-1", "hash", "srch_1")
    await log.append(make_tree(id="tree_1"), "alice", answer=_answer())
    await log.delete("tree_1")
    assert await log.claim("alice", "round-1", "hash", "srch_2") == Claim("new", "srch_2")


async def test_a_claim_of_a_dead_process_does_not_block_its_key_for_ever(url: str, clock: Any) -> None:
    async with await TreeLog.open(url, clock=clock) as log:
        await log.claim("alice", "running", "hash", "srch_1", seconds=60)
        await log.claim("alice", "round-1", "hash", "srch_1")
        await log.finish(_answer())
    async with await TreeLog.open(url, clock=clock) as log:
        if log.store.kind == "postgresql":  # another server may be alive: there a claim has to run out
            assert await log.claim("alice", "running", "hash", "srch_2") == Claim("running", "srch_1")
            clock.advance(60)
        assert await log.claim("alice", "running", "hash", "srch_2") == Claim("new", "srch_2")
        assert (await log.claim("alice", "round-1", "hash", "srch_2")).state == "answered"
