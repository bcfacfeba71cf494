from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ramify.treelog import BadCursor, Consumer, ConsumerConflict, ExpiryCounts, LogError, TreeLog
from treelog_trees import make_tree

pytestmark = pytest.mark.anyio


async def _fill(log: TreeLog, n: int, **fields: Any) -> list[str]:
    made = [make_tree(2, **fields) for _ in range(n)]
    for tree in made:
        await log.append(tree)
    return [tree.id for tree in made]


async def test_a_consumer_is_registered_once_and_starts_at_the_beginning(log: TreeLog) -> None:
    assert await log.get_consumer("trainer") is None
    made = await log.put_consumer("trainer", version=None)
    assert (made.cursor, made.version, made.owner) == (0, 1, None)
    assert await log.get_consumer("trainer") == made
    with pytest.raises(ConsumerConflict, match="is at version 1, no version was given"):
        await log.put_consumer("trainer", version=None)
    assert await log.consumers() == [made]


async def test_a_cursor_moves_only_from_the_version_last_seen(log: TreeLog) -> None:
    await _fill(log, 3)
    await log.put_consumer("trainer", version=None)
    moved = await log.put_consumer("trainer", version=1, cursor=2)
    assert (moved.cursor, moved.version) == (2, 2)
    with pytest.raises(ConsumerConflict) as stale:
        await log.put_consumer("trainer", version=1, cursor=3)
    assert stale.value.code == "stale_version"
    with pytest.raises(ConsumerConflict, match="not registered"):
        await log.put_consumer("other", version=1)


async def test_two_trainers_cannot_both_advance_one_cursor(log: TreeLog) -> None:
    await _fill(log, 8)
    await log.put_consumer("trainer", version=None)
    moves = (log.put_consumer("trainer", version=1, cursor=i) for i in range(1, 9))
    results = await asyncio.gather(*moves, return_exceptions=True)
    assert [type(r) for r in results] == [Consumer] + [ConsumerConflict] * 7


async def test_a_cursor_is_never_beyond_the_log_and_goes_back_only_when_told(log: TreeLog) -> None:
    await _fill(log, 3)
    await log.put_consumer("trainer", version=None, cursor=3)
    with pytest.raises(BadCursor, match="holds 0 to 3, got cursor 4"):
        await log.put_consumer("trainer", version=1, cursor=4)
    with pytest.raises(BadCursor, match="got cursor -1"):
        await log.put_consumer("trainer", version=1, cursor=-1, rewind=True)
    with pytest.raises(BadCursor, match="needs `rewind`"):
        await log.put_consumer("trainer", version=1, cursor=2)
    assert (await log.put_consumer("trainer", version=1, cursor=2, rewind=True)).cursor == 2


async def test_a_lease_keeps_others_off_until_it_runs_out(log: TreeLog) -> None:
    await _fill(log, 1)
    held = await log.put_consumer("trainer", version=None, owner="a", lease_seconds=0.5)
    assert held.owner == "a"
    with pytest.raises(ConsumerConflict) as refused:
        await log.put_consumer("trainer", version=1, cursor=1, owner="b", lease_seconds=60)
    assert refused.value.code == "lease_held"
    assert f"leased to a until {held.lease_expires:.0f}" in str(refused.value)
    with pytest.raises(ConsumerConflict, match="is leased"):
        await log.put_consumer("trainer", version=1, cursor=1)
    with pytest.raises(ConsumerConflict, match="is leased"):
        await log.delete_consumer("trainer")
    renewed = await log.put_consumer("trainer", version=1, cursor=1, owner="a", lease_seconds=0.5)
    assert (renewed.lease_expires or 0) > (held.lease_expires or 0)
    async with asyncio.timeout(20):
        while (seen := await log.get_consumer("trainer")) is not None and seen.owner:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert (await log.put_consumer("trainer", version=2, owner="b", lease_seconds=60)).owner == "b"


@pytest.mark.parametrize("step", [3600, -3600], ids=["forward", "back"])
async def test_no_step_of_the_wall_clock_ends_or_prolongs_a_lease(
    log: TreeLog, clock: Any, step: float
) -> None:
    held = await log.put_consumer("trainer", version=None, owner="a", lease_seconds=60)
    clock.advance(step)
    seen = await log.get_consumer("trainer")
    assert seen == held
    with pytest.raises(ConsumerConflict, match="is leased"):
        await log.put_consumer("trainer", version=1, owner="b", lease_seconds=60)
    renewed = await log.put_consumer("trainer", version=1, owner="a", lease_seconds=60)
    assert 0 <= (renewed.lease_expires or 0) - (held.lease_expires or 0) < 30


async def test_a_lease_is_its_api_keys_whatever_owner_another_key_names(log: TreeLog) -> None:
    await _fill(log, 1)
    await log.put_consumer("trainer", version=None, owner="a", lease_seconds=60, key_id="alice")
    with pytest.raises(ConsumerConflict, match="alice"):
        await log.put_consumer("trainer", version=1, cursor=1, owner="a", lease_seconds=60, key_id="bob")
    moved = await log.put_consumer(
        "trainer", version=1, cursor=1, owner="a", lease_seconds=60, key_id="alice"
    )
    assert (moved.cursor, moved.key_id) == (1, "alice")


async def test_an_owner_gives_its_lease_back(log: TreeLog) -> None:
    await log.put_consumer("trainer", version=None, owner="a", lease_seconds=60)
    freed = await log.put_consumer("trainer", version=1, owner="a")
    assert (freed.owner, freed.lease_expires) == (None, None)
    assert (await log.put_consumer("trainer", version=2, owner="b", lease_seconds=60)).owner == "b"


async def test_retention_deletes_only_what_every_consumer_has_read(log: TreeLog) -> None:
    ids = await _fill(log, 6)
    await log.put_consumer("fast", version=None, cursor=6)
    await log.put_consumer("slow", version=None, cursor=2)
    assert await log.expire(keep_newest=0) == ExpiryCounts(2, 0, 0)
    assert [r.tree_id async for r in log.read()] == ids[2:]
    assert await log.delete_consumer("slow")
    assert not await log.delete_consumer("slow")
    assert await log.expire(keep_newest=1) == ExpiryCounts(3, 0, 0)
    assert [r.tree_id async for r in log.read()] == ids[5:]


async def test_retention_waits_for_the_readers_of_a_trees_verdicts(log: TreeLog) -> None:
    ids = await _fill(log, 2)
    await log.add_feedback(ids[0], 1.0, node=0)
    await log.put_consumer("trainer", version=None, cursor=2)
    assert await log.expire(keep_newest=0) == ExpiryCounts(1, 0, 0)
    await log.put_consumer("trainer", version=1, cursor=3)
    assert await log.expire(keep_newest=0) == ExpiryCounts(1, 1, 0)
    assert await log.append(make_tree()) == 4


async def test_retention_keeps_the_young(log: TreeLog, clock: Any) -> None:
    await _fill(log, 3, created_at=clock.now - 100)
    await _fill(log, 2, created_at=clock.now - 10)
    assert await log.expire(older_than=50) == ExpiryCounts(3, 0, 0)
    assert await log.expire(older_than=50, keep_newest=0) == ExpiryCounts(0, 0, 0)
    with pytest.raises(LogError, match="say what to keep"):
        await log.expire()


async def test_retention_of_a_long_log_goes_in_chunks_to_the_end(log: TreeLog) -> None:
    await asyncio.gather(*(log.append(make_tree(1)) for _ in range(600)))
    assert (await log.expire(keep_newest=10)).trees == 590


async def test_retention_by_size_and_age_deletes_what_either_names(log: TreeLog, clock: Any) -> None:
    old = await _fill(log, 2, created_at=clock.now - 100)
    young = await _fill(log, 4, created_at=clock.now - 10)
    size = await log.size()
    assert (size.trees, size.oldest) == (6, clock.now - 100)
    most = size.bytes * 7 // 12  # three and a half of six
    rules = {"older_than": 50.0, "keep_bytes": most}
    assert (await log.expirable(**rules)).trees == 3
    assert (await log.expire(**rules)).trees == 3
    assert [r.tree_id async for r in log.read()] == [*old, *young][3:]
    assert (await log.size()).bytes <= most
    assert await log.expire(keep_bytes=0, keep_newest=1) == ExpiryCounts(2, 0, 0)
