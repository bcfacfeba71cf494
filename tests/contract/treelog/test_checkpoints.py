"""Checkpoints: a search that its process leaves behind is logged as interrupted, once, and by nobody while it lives."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from ramify.objects import ObjectOptions
from ramify.search.records import SearchPart
from ramify.search.tree import Tree
from ramify.treelog import LogError, TreeLog
from ramify.treelog.schema import checkpoints
from treelog_trees import make_tree

pytestmark = pytest.mark.anyio
LONG = 3600.0
"""A lease that nobody outlives here."""


def snapshot(**fields: Any) -> Tree:
    """A search under way: a plan in flight, no answer chosen."""
    tree = make_tree(**fields)
    tree.status, tree.stop_reason, tree.answer, tree.candidates = "running", None, None, []
    tree.root.in_flight = tree.root.expanding = 1
    return tree


async def keep(log: TreeLog, tree: Tree, lease_seconds: float = LONG, key_id: str = "alice") -> bool:
    return await (await log.checkpoint(tree, key_id, lease_seconds=lease_seconds))()


async def test_a_search_of_a_dead_process_is_logged_as_interrupted_as_far_as_its_last_checkpoint(
    url: str,
) -> None:
    tree = snapshot(n_nodes=3)
    async with await TreeLog.open(url) as log:
        assert await keep(log, snapshot(n_nodes=2, id=tree.id), 0.0)
        assert await keep(log, tree, 0.0)
        assert await log.checkpoint_owner(tree.id) == ("alice", log.boot_id)
        assert await log.log_interrupted() == []  # its process lives
        assert await log.high_water() == 0  # and it is no tree
    async with await TreeLog.open(url) as log:
        assert await log.log_interrupted() == [tree.id]
        assert await log.log_interrupted() == []
        assert await log.checkpoint_owner(tree.id) is None
        entry = await log.get(tree.id, key_id="alice")
        assert entry is not None
        logged = entry.tree()
        assert (logged.status, logged.stop_reason, len(logged.nodes)) == ("interrupted", "crash", 3)
        assert logged.answer is not None
        assert (logged.answer.node, logged.answer.final) == (2, "2 + 1 = 3")
        assert not logged.root.in_flight + logged.root.expanding
        assert (await log.verify()).ok


async def test_a_finished_tree_takes_its_checkpoint_away(url: str) -> None:
    done = make_tree()
    async with await TreeLog.open(url) as log:
        await keep(log, snapshot(id=done.id), 0.0)
        late = await log.checkpoint(snapshot(id=done.id), lease_seconds=0.0)
        await log.append(done)
        assert await log.checkpoint_owner(done.id) is None
        assert not await late()  # written after the tree: it must not come back
    async with await TreeLog.open(url) as log:
        assert await log.log_interrupted() == []
        assert [entry.status for entry in await log.list()] == ["complete"]


async def test_the_whole_tree_takes_the_place_of_one_that_was_given_up_too_soon(url: str) -> None:
    done = make_tree()
    async with await TreeLog.open(url) as log:
        await keep(log, snapshot(id=done.id), 0.0)
    async with await TreeLog.open(url) as log:
        assert await log.log_interrupted() == [done.id]
        assert await log.append(done) == 2
        assert [(row.seq, row.status) for row in await log.list()] == [(2, "complete")]
        assert (await log.verify()).ok


async def test_the_whole_tree_takes_over_the_feedback_on_the_interrupted_one_and_leaves_no_object(
    url: str, objects: ObjectOptions, tmp_path: Path
) -> None:
    done = make_tree()
    async with await TreeLog.open(url, objects=objects) as log:
        await keep(log, snapshot(id=done.id, n_nodes=3), 0.0)
    async with await TreeLog.open(url, objects=objects) as log:
        assert await log.log_interrupted() == [done.id]
        inner = await log.add_feedback(done.id, 0.0, node=2)
        answer = await log.add_feedback(done.id, 1.0, node=0)
        assert done.answer is not None
        done.answer = replace(done.answer, node=inner.node)
        await log.append(done)
        assert await log.feedback(done.id) == [inner, answer]
        (row,) = await log.list()
        assert (row.status, row.outcome) == ("complete", 0.0)
        assert (await log.verify()).ok
        kept = [path for path in (tmp_path / "bodies" / "trees").rglob("*") if path.is_file()]
        assert len(kept) == (1 if objects.trees else 0)


async def test_a_checkpoint_that_the_log_refuses_is_told_and_the_others_are_logged(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    taken, *others = sorted((make_tree() for _ in range(3)), key=lambda tree: tree.id)
    async with await TreeLog.open(url) as log:
        for tree in (taken, *others):
            await keep(log, snapshot(id=tree.id), 0.0)
        async with log._writes.begin() as conn:  # as of a log that was put back from a backup
            rows = (
                await conn.execute(select(checkpoints).where(checkpoints.c.tree_id == taken.id))
            ).mappings()
            row = dict(rows.one())
        await log.append(taken)
        async with log._writes.begin() as conn:
            await conn.execute(insert(checkpoints).values(**row))
    async with await TreeLog.open(url) as log:
        assert await log.log_interrupted() == [tree.id for tree in others]
        assert f"the checkpoint of {taken.id} is refused, and stays: another tree" in caplog.text
        assert await log.checkpoint_owner(taken.id) == ("alice", row["boot_id"])
        assert await log.log_interrupted() == []
        assert caplog.text.count("is refused, and stays") == 1, "once, however often it is looked for"
        entry = await log.get(taken.id)
        assert entry is not None
        assert entry.status == "complete"


@pytest.mark.parametrize("running", [True, False])
async def test_an_interrupted_tree_that_another_search_goes_on_from_stays(url: str, running: bool) -> None:
    done = make_tree()
    then = snapshot(continues=SearchPart(done.id, done.usage))
    async with await TreeLog.open(url) as log:
        await keep(log, snapshot(id=done.id), 0.0)
    async with await TreeLog.open(url) as log:
        assert await log.log_interrupted() == [done.id]
        if running:
            await keep(log, then)
        else:
            await log.append(make_tree(id=then.id, continues=then.continues))
        with pytest.raises(LogError, match=f"another tree is logged as {done.id}"):
            await log.append(done)
        entry = await log.get(done.id)
        assert entry is not None
        assert entry.tree().status == "interrupted"


@pytest.mark.postgres
async def test_a_living_servers_checkpoint_is_nobody_elses(postgres_server: Any) -> None:
    url, tree = postgres_server.database(), snapshot()
    async with await TreeLog.open(url) as one, await TreeLog.open(url) as other:
        await keep(one, tree)
        assert await other.log_interrupted() == []
        await _age(one, 2 * LONG)
        assert await one.renew_checkpoints() == 1
        assert await other.log_interrupted() == []
        await _age(one, 2 * LONG)
        found = await asyncio.gather(other.log_interrupted(), one.log_interrupted())
        assert found == [[tree.id], []]
        assert await one.renew_checkpoints() == 0


async def _age(log: TreeLog, seconds: float) -> None:
    """Have every checkpoint last been renewed so long ago."""
    assert log._writes is not None
    async with log._writes.begin() as conn:
        await conn.execute(update(checkpoints).values(renewed_at=checkpoints.c.renewed_at - seconds))


async def test_a_checkpoint_that_is_not_what_was_written_is_dropped_and_the_others_are_logged(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    spoiled, sound = snapshot(), snapshot()
    async with await TreeLog.open(url) as log:
        for tree in (spoiled, sound):
            await keep(log, tree, 0.0)
        assert log._writes is not None
        async with log._writes.begin() as conn:
            mine = checkpoints.c.tree_id == spoiled.id
            await conn.execute(update(checkpoints).where(mine).values(body=b"rubbish"))
    async with await TreeLog.open(url) as log:
        assert await log.log_interrupted() == [sound.id]
        assert await log.checkpoint_owner(spoiled.id) is None
    assert f"the checkpoint of {spoiled.id} cannot be read" in caplog.text


async def test_the_tree_that_goes_on_from_another_is_found_running_or_logged(url: str) -> None:
    part = make_tree()
    then = snapshot(continues=SearchPart(part.id, part.usage))
    async with await TreeLog.open(url) as log:
        await log.append(part)
        assert await log.continuation(part.id) is None
        await keep(log, then)
        assert await log.continuation(part.id) == then.id
        await log.append(make_tree(id=then.id, continues=then.continues))
        assert await log.continuation(part.id) == then.id
        assert [row.continues for row in await log.list()] == [part.id, None]
        assert (await log.verify()).ok


async def test_what_json_cannot_hold_is_no_checkpoint(log: TreeLog) -> None:
    with pytest.raises(LogError, match="cannot be written as JSON"):
        await log.checkpoint(snapshot(problem={"x": object()}), lease_seconds=1.0)
