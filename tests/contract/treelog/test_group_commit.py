from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from ramify.treelog import StoreError, TreeLog
from ramify.treelog.store import writer_engine
from ramify.treelog.writer import write_transaction
from treelog_trees import make_tree

pytestmark = pytest.mark.anyio


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  (the log has no event for what is watched here)
            await asyncio.sleep(0)


async def test_appends_that_wait_for_a_commit_share_the_next(url: str) -> None:
    async with await TreeLog.open(url) as log:
        other = writer_engine(log.store)
        before = log.commits
        async with write_transaction(other, time.time):  # holds the log's first transaction up
            appends = [asyncio.create_task(log.append(make_tree())) for _ in range(64)]
            await _until(lambda: log.pending == 64)
        await asyncio.gather(*appends)
        assert log.commits - before <= 2
        await other.dispose()


async def test_64_clients_at_once_each_get_their_place(url: str) -> None:
    """`-s` prints the rates."""
    made = iter([make_tree(60) for _ in range(32 + 64 * 3)])
    async with await TreeLog.open(url) as log:

        async def client(n: int) -> float:
            start = time.perf_counter()
            for _ in range(n):
                await log.append(next(made))
            return time.perf_counter() - start

        alone = 32 / await client(32)
        before, start = log.commits, time.perf_counter()
        waits = await asyncio.gather(*(client(3) for _ in range(64)))
        together = 192 / (time.perf_counter() - start)
        print(
            f"\n{log.store.kind}: {alone:.0f} appends/s from one client; {together:.0f}/s from 64 in "
            f"{log.commits - before} commits, {sum(waits) / 192 * 1000:.0f} ms each (60 nodes a tree)"
        )
        assert await log.high_water() == 32 + 192


async def test_a_store_that_is_stuck_is_reported_as_full_or_late_and_recovers(url: str) -> None:
    made = [make_tree() for _ in range(4)]
    async with await TreeLog.open(url, max_pending=2, deadline=0.2) as log:
        stuck, before = writer_engine(log.store), log.commits
        async with write_transaction(stuck, time.time):
            results = await asyncio.gather(*(log.append(t) for t in made[:3]), return_exceptions=True)
        await stuck.dispose()
        assert [type(r) for r in results] == [StoreError] * 3
        assert [str(r).split()[0] for r in results] == ["not", "not", "no"]  # committed, committed, room
        await _until(lambda: log.commits > before)
        await log.append(made[3])
        # The two that were late are written whole all the same, the one that found no room is not.
        assert [r.tree_id async for r in log.read()] == [made[0].id, made[1].id, made[3].id]
