"""A reader that remembers one number misses nothing, whoever commits when."""

from __future__ import annotations

import asyncio
import time

import pytest
from sqlalchemy import event, insert, text
from sqlalchemy.ext.asyncio import AsyncEngine

from ramify.treelog import LogError, TreeLog
from ramify.treelog.rows import row_of
from ramify.treelog.schema import trees
from ramify.treelog.store import parse_url, reader_engine, writer_engine
from ramify.treelog.writer import write_transaction
from treelog_trees import make_tree

pytestmark = pytest.mark.anyio


async def test_readers_that_race_the_writers_skip_nothing(url: str) -> None:
    """Two servers where the store allows it, each with many appends and verdicts at once."""
    servers = [await TreeLog.open(url)]
    if servers[0].store.kind == "postgresql":
        servers.append(await TreeLog.open(url))
    total = 300

    async def write(log: TreeLog, n: int) -> None:
        tree = make_tree(2)
        await log.append(tree)
        for i in range(n - 1):
            await (log.add_feedback(tree.id, 1.0, node=0) if i % 3 == 0 else log.append(make_tree(2)))

    async def follow(log: TreeLog) -> list[int]:
        seen: list[int] = []
        while len(seen) < total:
            seen += [record.seq async for record in log.read(seen[-1] if seen else 0, limit=7)]
        return seen

    writers = [write(log, total // (10 * len(servers))) for log in servers for _ in range(10)]
    async with asyncio.timeout(60):
        followed = await asyncio.gather(*(follow(log) for log in servers * 2), *writers)
    assert followed[: 2 * len(servers)] == [list(range(1, total + 1))] * (2 * len(servers))
    for log in servers:
        await log.close()


@pytest.mark.postgres
async def test_a_number_drawn_first_but_committed_late_holds_the_others_back(postgres_server: object) -> None:
    url: str = postgres_server.database()  # type: ignore[attr-defined]
    engine, watch = writer_engine(parse_url(url)), reader_engine(parse_url(url))
    async with await TreeLog.open(url) as log:
        async with write_transaction(engine, time.time) as slow:
            early = row_of(make_tree(), "")
            await slow.conn.execute(insert(trees), {**early, "seq": slow.draw()})
            late = asyncio.create_task(log.append(make_tree()))
            await _someone_waits_for_a_lock(watch)
            assert [r.seq async for r in log.read()] == []
            assert not late.done()
        assert await late == 2
        assert [r.seq async for r in log.read()] == [1, 2]
    await engine.dispose()
    await watch.dispose()


async def _someone_waits_for_a_lock(engine: AsyncEngine) -> None:
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    async with asyncio.timeout(10):
        while True:
            async with engine.connect() as conn:
                if (await conn.execute(waiting)).scalar_one():
                    return


@pytest.mark.postgres
async def test_a_lost_connection_costs_no_append(postgres_server: object) -> None:
    url: str = postgres_server.database()  # type: ignore[attr-defined]
    killer = writer_engine(parse_url(url))
    kill = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid != pg_backend_pid() "
                "AND datname = current_database()")  # fmt: skip
    async with await TreeLog.open(url) as log:
        appends = [asyncio.create_task(log.append(make_tree(2))) for _ in range(400)]
        for _ in range(3):
            waiting = [task for task in appends if not task.done()]
            if waiting:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            async with killer.begin() as conn:
                await conn.execute(kill)
        seqs = await asyncio.gather(*appends)
        assert sorted(seqs) == list(range(1, 401))
        assert (await log.verify()).ok
    await killer.dispose()


@pytest.mark.postgres
async def test_an_append_holds_the_lock_for_its_writes_alone(postgres_server: object) -> None:
    url: str = postgres_server.database()  # type: ignore[attr-defined]
    said: list[str] = []
    async with await TreeLog.open(url) as log:
        assert log._writes is not None
        event.listen(log._writes.sync_engine, "before_cursor_execute", lambda *args: said.append(args[2]))
        event.listen(log._writes.sync_engine, "commit", lambda _: said.append("COMMIT"))
        await asyncio.gather(*(log.append(make_tree()) for _ in range(5)))
    locked = said[next(i for i, statement in enumerate(said) if "counter" in statement) :]
    kinds = [" ".join(statement.split()[:3]) for statement in locked[:4]]
    assert kinds == ["UPDATE counter SET", "INSERT INTO trees", "DELETE FROM checkpoints", "COMMIT"]


@pytest.mark.postgres
@pytest.mark.parametrize("company", [0, 3])
@pytest.mark.parametrize("theirs", ["same", "another", "interrupted"])
async def test_a_tree_that_another_server_logs_between_an_append_and_its_lock_is_logged_once(
    postgres_server: object, theirs: str, company: int
) -> None:
    url: str = postgres_server.database()  # type: ignore[attr-defined]
    engine, watch = writer_engine(parse_url(url)), reader_engine(parse_url(url))
    tree = make_tree(id="tree_1")
    others = {"same": tree, "another": make_tree(9, id="tree_1")}
    other = others.get(theirs) or make_tree(2, id="tree_1", status="interrupted")
    async with await TreeLog.open(url) as log:
        mine = [await log.encode(each) for each in [tree] + [make_tree() for _ in range(company)]]
        async with write_transaction(engine, time.time) as slow:
            await slow.conn.execute(insert(trees), {**row_of(other, ""), "seq": slow.draw()})
            together = asyncio.gather(*map(log.append_encoded, mine), return_exceptions=True)
            await _someone_waits_for_a_lock(watch)
        result, *rest = await together
        if theirs == "another":
            assert isinstance(result, LogError)
            assert "another tree is logged as tree_1" in str(result)
        else:
            assert result == (1 if theirs == "same" else 2)
        last = 1 + company + (theirs == "interrupted")
        assert sorted(rest) == list(range(last - company + 1, last + 1))
        assert await log.high_water() == last
        assert [r.status async for r in log.read() if r.tree_id == "tree_1"] == ["complete"]
        assert (await log.verify()).ok
    await engine.dispose()
    await watch.dispose()
