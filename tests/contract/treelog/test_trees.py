from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import text

from ramify.search.codec import tree_to_dict
from ramify.search.records import AnswerVerdict, Usage
from ramify.search.tree import Tree
from ramify.treelog import (
    Claim,
    CorruptRow,
    CorruptTree,
    Filters,
    LogError,
    TreeLog,
)
from ramify.treelog.bodies import object_name
from ramify.treelog.rows import compress
from ramify.treelog.store import writer_engine
from treelog_trees import make_tree, trees

pytestmark = pytest.mark.anyio


async def test_an_appended_tree_reads_back_unchanged(log: TreeLog) -> None:
    tree = make_tree()
    seq = await log.append(tree, "alice")
    entry = await log.get(tree.id)
    assert entry is not None
    assert (entry.seq, entry.key_id, entry.tree()) == (seq, "alice", tree)
    assert (entry.n_nodes, entry.n_tokens, entry.best_value, entry.answer) == (4, 8, 0.5, "24")


async def test_what_is_not_logged_is_none(log: TreeLog) -> None:
    assert await log.get("tree_0") is None
    assert await log.list() == []
    assert await log.high_water() == 0


@given(tree=trees())
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_any_tree_survives_the_log_and_verifies(log: TreeLog, tree: Tree) -> None:
    await log.append(tree)
    entry = await log.get(tree.id)
    assert entry is not None
    assert entry.tree() == tree
    assert entry.body == json.dumps(tree_to_dict(tree), separators=(",", ":")).encode()
    assert (await log.verify()).ok


async def test_concurrent_appends_get_one_seq_each_without_gaps(log: TreeLog) -> None:
    seqs = await asyncio.gather(*(log.append(make_tree()) for _ in range(100)))
    assert sorted(seqs) == list(range(1, 101))


async def test_the_same_tree_again_gets_the_same_seq(log: TreeLog) -> None:
    tree = make_tree()
    first = await log.append(tree)
    assert await asyncio.gather(*(log.append(tree) for _ in range(3))) == [first] * 3
    assert await log.high_water() == first


async def test_another_tree_under_a_logged_id_is_refused(log: TreeLog) -> None:
    tree = make_tree()
    await log.append(tree)
    with pytest.raises(LogError, match=f"another tree is logged as {tree.id}"):
        await log.append(make_tree(5, id=tree.id))
    entry = await log.get(tree.id)
    assert entry is not None
    assert entry.tree() == tree


async def test_one_bad_record_does_not_sink_its_batch(log: TreeLog) -> None:
    bad = make_tree()
    bad.usage = Usage(completion_tokens=2**70)  # more than a column of either store holds
    good = [make_tree() for _ in range(8)]
    results = await asyncio.gather(
        *(log.append(tree) for tree in [*good[:4], bad, *good[4:]]), return_exceptions=True
    )
    assert "cannot hold a value" in str(results.pop(4))
    assert sorted(r for r in results if isinstance(r, int)) == list(range(1, 9))
    assert {r.tree_id async for r in log.read()} == {tree.id for tree in good}


@pytest.mark.parametrize("field", ["status", "created_at", "problem"])
async def test_a_tree_that_cannot_be_logged_is_refused_before_it_is_queued(log: TreeLog, field: str) -> None:
    bad = {"status": "running", "created_at": float("nan"), "problem": {"set": {1}}}
    with pytest.raises(LogError, match=r"still running|as JSON"):
        await log.append(make_tree(**{field: bad[field]}))
    assert await log.high_water() == 0


async def test_a_cancelled_append_is_whole_or_absent(log: TreeLog) -> None:
    made = [make_tree() for _ in range(40)]
    tasks = [asyncio.create_task(log.append(tree)) for tree in made]
    for turns, task in enumerate(tasks):
        for _ in range(turns % 7):
            await asyncio.sleep(0)  # each is caught at another point on its way
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await log.append(make_tree())  # queued behind all of them
    seen = {r.tree_id for r in [r async for r in log.read()]}
    acknowledged = {t.id for t, task in zip(made, tasks, strict=True) if not task.cancelled()}
    assert acknowledged <= seen
    assert (await log.verify()).ok


async def test_close_commits_what_waits_and_then_refuses(url: str) -> None:
    log = await TreeLog.open(url)
    tasks = [asyncio.create_task(log.append(make_tree())) for _ in range(20)]
    await asyncio.sleep(0)
    await log.close()
    assert sorted(await asyncio.gather(*tasks)) == list(range(1, 21))
    with pytest.raises(LogError, match="is closed"):
        await log.append(make_tree())
    with pytest.raises(LogError, match="is closed"):
        await log.list()


async def test_the_log_goes_on_where_it_was_closed(url: str) -> None:
    async with await TreeLog.open(url) as log:
        await log.append(make_tree())
    async with await TreeLog.open(url) as log:
        assert await log.append(make_tree()) == 2


async def test_a_listing_is_newest_first_and_pages_by_seq(log: TreeLog) -> None:
    for _ in range(5):
        await log.append(make_tree())
    first = await log.list(limit=2)
    rest = await log.list(before=first[-1].seq, limit=10)
    assert [s.seq for s in [*first, *rest]] == [5, 4, 3, 2, 1]


@pytest.mark.parametrize(
    "filters",
    [
        Filters(status="deadline"),
        Filters(model="other"),
        Filters(release="v000002"),
        Filters(algorithm="beam"),
        Filters(task="maths"),
        Filters(key_id="bob"),
        Filters(min_value=0.9),
        Filters(text="100% SURE_"),
        Filters(status="deadline", key_id="bob", text="sure_"),
    ],
)
async def test_a_listing_shows_what_its_filters_ask_for(log: TreeLog, filters: Filters) -> None:
    from ramify.search.records import SearchParams

    wanted = make_tree(
        status="deadline",
        model="other",
        task="maths",
        value=0.95,
        params=SearchParams(algorithm="beam"),
        prompt="are you 100% sure_?",
    )
    wanted.nodes[1].release = "v000002"
    await log.append(make_tree(prompt="are you 1000 surely?"), "alice")
    await log.append(wanted, "bob")
    assert [s.tree_id for s in await log.list(filters=filters)] == [wanted.id]


async def test_a_deleted_tree_is_gone_and_its_seq_is_never_used_again(url: str) -> None:
    tree = make_tree()
    async with await TreeLog.open(url) as log:
        await log.append(make_tree())
        await log.append(tree)
        await log.add_feedback(tree.id, 1.0, node=3)
        assert await log.delete(tree.id)
        assert not await log.delete(tree.id)
        assert await log.get(tree.id) is None
        assert await log.feedback(tree.id) == []
    async with await TreeLog.open(url) as log:
        assert await log.append(make_tree()) == 4


async def test_verdicts_share_the_trees_seq(log: TreeLog) -> None:
    tree = make_tree()
    await log.append(tree)
    verdict = await log.add_feedback(tree.id, 0.25, node=3, key_id="bob", comment="nearly", train=False)
    await log.append(make_tree())
    assert verdict.seq == 2
    assert await log.feedback(tree.id) == [verdict]
    assert [(r.seq, r.kind) async for r in log.read()] == [(1, "tree"), (2, "outcome"), (3, "tree")]


async def test_verdicts_that_make_no_sense_are_refused(log: TreeLog) -> None:
    tree = make_tree()
    await log.append(tree)
    with pytest.raises(LogError, match=r"1\.5, which is not in"):
        await log.add_feedback(tree.id, 1.5, node=0)
    with pytest.raises(LogError, match="nodes 0 to 3, got 4"):
        await log.add_feedback(tree.id, 1.0, node=4)
    with pytest.raises(LogError, match="neither a node nor an answer"):
        await log.add_feedback(tree.id, 1.0)
    with pytest.raises(LogError, match="no tree tree_0"):
        await log.add_feedback("tree_0", 1.0, answer="24")
    assert await log.high_water() == 1


async def test_a_reader_stops_at_the_mark_taken_at_its_start(log: TreeLog) -> None:
    for _ in range(3):
        await log.append(make_tree())
    seen = []
    async for record in log.read():
        seen.append(record.seq)
        await log.append(make_tree())
    assert seen == [1, 2, 3]
    assert [r.seq async for r in log.read(2, limit=2)] == [3, 4]
    assert [r.seq async for r in log.read(1, up_to=2)] == [2]
    assert [r.seq async for r in log.read(limit=0)] == []


async def test_a_read_crosses_pages_of_trees_and_verdicts_in_order(log: TreeLog) -> None:
    made = [make_tree(2) for _ in range(70)]
    for tree in made:  # runs of each kind longer than a page, and mixed ones
        await log.append(tree)
    await asyncio.gather(*(log.add_feedback(made[0].id, 1.0, node=0) for _ in made))
    verdicts = (log.add_feedback(tree.id, 1.0, node=0) for tree in made)
    appends = (log.append(make_tree(2)) for _ in made)
    await asyncio.gather(*(write for pair in zip(verdicts, appends, strict=True) for write in pair))
    assert [r.seq async for r in log.read()] == list(range(1, 281))
    assert [r.seq async for r in log.read(31, limit=64)] == list(range(32, 96))


async def test_a_read_only_log_reads_beside_the_writer_and_refuses_to_write(url: str, log: TreeLog) -> None:
    tree = make_tree()
    await log.append(tree)
    async with await TreeLog.open(url, read_only=True) as reader:
        assert [s.tree_id for s in await reader.list()] == [tree.id]
        await log.append(make_tree())
        assert await reader.high_water() == 2
        with pytest.raises(LogError, match="read-only"):
            await reader.append(make_tree())


async def test_a_read_only_open_of_a_store_without_a_log_says_so(url: str) -> None:
    with pytest.raises(LogError, match=r"no log at|schema is missing"):
        await TreeLog.open(url, read_only=True)


async def test_a_schema_from_the_future_is_refused(url: str) -> None:
    async with await TreeLog.open(url) as log, _sql(log) as conn:
        await conn.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(LogError, match="newer Ramify"):
        await TreeLog.open(url)
    with pytest.raises(LogError, match="9999"):
        await TreeLog.open(url, read_only=True)


@asynccontextmanager
async def _sql(log: TreeLog) -> AsyncIterator[Any]:
    """Somebody else's hands on the database."""
    engine = writer_engine(log.store)
    try:
        async with engine.begin() as conn:
            yield conn
    finally:
        await engine.dispose()


async def _spoil(log: TreeLog, statement: str, **values: Any) -> None:
    async with _sql(log) as conn:
        await conn.execute(text(statement), values)


async def _object(log: TreeLog, tree_id: str) -> Path | None:
    """The file that holds a tree's body, whatever hash its row has; None if the row holds the body."""
    if (folder := log._bodies.folder()) is None:
        return None
    async with _sql(log) as conn:
        query = text("SELECT sha256 FROM trees WHERE tree_id = :t")
        return folder / object_name((await conn.execute(query, {"t": tree_id})).scalar_one())


async def _stored_body(log: TreeLog, tree_id: str) -> bytes:
    if file := await _object(log, tree_id):
        return file.read_bytes()
    async with _sql(log) as conn:
        query = text("SELECT body FROM trees WHERE tree_id = :t")
        return bytes((await conn.execute(query, {"t": tree_id})).scalar_one())


async def _store_body(log: TreeLog, tree_id: str, body: bytes) -> None:
    if file := await _object(log, tree_id):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(body)
    else:
        await _spoil(log, "UPDATE trees SET body = :b WHERE tree_id = :t", b=body, t=tree_id)


@pytest.mark.parametrize("damage", ["flip", "cut", "swap"])
async def test_a_corrupted_body_is_detected_on_every_read_and_stops_none(log: TreeLog, damage: str) -> None:
    tree, other, sound = make_tree(), make_tree(), make_tree()
    for t in (tree, other, sound):
        await log.append(t)
    stored, others = await _stored_body(log, tree.id), await _stored_body(log, other.id)
    body = bytearray(stored)
    body[len(body) // 2] ^= 0x10
    spoilt = {"flip": bytes(body), "cut": stored[:-9], "swap": others}[damage]
    await _store_body(log, tree.id, spoilt)

    with pytest.raises(CorruptTree, match=tree.id):
        await log.get(tree.id)
    records = [r async for r in log.read()]
    assert [(r.seq, r.kind, r.tree_id) for r in records] == [
        (1, "corrupt", tree.id),
        (2, "tree", other.id),
        (3, "tree", sound.id),
    ]
    assert isinstance(records[0], CorruptRow)
    assert records[0].reason
    assert len(await log.list()) == 3
    report = await log.verify()
    assert [(bad.seq, bad.tree_id) for bad in report.bad] == [(1, tree.id)]
    assert report.trees == 3


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"schema_version":1,', "not JSON"),
        (b'{"schema_version":99,"id":"x"}', "no tree of schema version 1"),
        (b"[" * 100_000, "no tree of schema version 1"),
    ],
    ids=["no JSON", "another schema", "deep"],
)
async def test_a_body_with_the_right_hash_that_is_no_tree_stops_no_reader(
    log: TreeLog, body: bytes, said: str
) -> None:
    bad, sound = make_tree(), make_tree()
    for t in (bad, sound):
        await log.append(t)
    sha256 = hashlib.sha256(body).hexdigest()
    await _spoil(log, "UPDATE trees SET sha256 = :s WHERE tree_id = :t", s=sha256, t=bad.id)
    await _store_body(log, bad.id, compress(body))
    first, second = [r async for r in log.read()]
    assert isinstance(first, CorruptRow)
    assert said in first.reason
    assert second.tree_id == sound.id
    assert said in (await log.verify()).bad[0].reason


@pytest.mark.parametrize("column", ["outcome = 2", "outcome = 'NaN'", "source = 'oracle'", "node = NULL"])
async def test_a_corrupt_verdict_stops_no_reader_either(log: TreeLog, column: str) -> None:
    tree = make_tree()
    await log.append(tree)
    await log.add_feedback(tree.id, 1.0, node=3)
    await log.add_feedback(tree.id, 0.0, node=3)
    await _spoil(log, f"UPDATE feedback SET {column} WHERE seq = 2")
    assert [(r.seq, r.kind) async for r in log.read()] == [(1, "tree"), (2, "corrupt"), (3, "outcome")]
    assert [o.seq for o in await log.feedback(tree.id)] == [3]
    assert [bad.seq for bad in (await log.verify()).bad] == [2]


async def test_a_text_that_is_no_utf8_any_more_stops_no_reader(log: TreeLog) -> None:
    if log.store.kind != "sqlite":
        pytest.skip("PostgreSQL itself keeps texts whole")
    for _ in range(2):
        await log.append(make_tree())
    await _spoil(log, "UPDATE trees SET prompt = CAST(X'FF20' AS TEXT) WHERE seq = 1")
    assert [r.kind async for r in log.read()] == ["tree", "tree"]
    assert [row.prompt[0] for row in await log.list()] == ["3", "\ufffd"]
    assert [bad.seq for bad in (await log.verify()).bad] == [1]


async def test_verify_finds_a_column_that_disagrees_with_its_body(log: TreeLog) -> None:
    tree = make_tree()
    await log.append(tree)
    await _spoil(log, "UPDATE trees SET best_value = 0.75")
    assert [bad.reason for bad in (await log.verify()).bad] == ["best_value is 0.75, its body says 0.5"]


async def test_verify_finds_verdicts_on_no_tree_and_rows_beyond_the_counter(log: TreeLog) -> None:
    tree = make_tree()
    await log.append(tree)
    await log.append(make_tree())
    await log.add_feedback(tree.id, 1.0, node=0)
    await _spoil(log, "DELETE FROM trees WHERE tree_id = :t", t=tree.id)
    assert [(b.seq, b.reason) for b in (await log.verify()).bad] == [(3, "a verdict on no tree")]
    await _spoil(log, "UPDATE counter SET last = 1")
    assert [b.seq for b in (await log.verify()).bad] == [2, 3]


async def test_verify_tells_how_far_it_is(log: TreeLog) -> None:
    for _ in range(40):
        await log.append(make_tree(2))
    heard: list[tuple[int, int]] = []
    report = await log.verify(lambda seq, last: heard.append((seq, last)))
    assert report.ok
    assert heard[-1] == (40, 40)
    assert len(heard) > 1


async def test_texts_that_sql_cannot_hold_are_asked_for_and_kept_without_harm(log: TreeLog) -> None:
    odd = "a\0b\ud800"
    assert await log.get(odd) is None
    assert not await log.delete(odd)
    assert await log.get_consumer(odd) is None
    tree = make_tree(model=odd)
    await log.append(tree, odd)
    verdict = await log.add_feedback(tree.id, 1.0, answer=odd, key_id=odd, comment=odd)
    assert [s.tree_id for s in await log.list(filters=Filters(model=odd, key_id=odd))] == [tree.id]
    assert await log.list(filters=Filters(text=odd)) == []
    assert [o.comment for o in await log.feedback(tree.id)] == [verdict.comment] == ["a\ufffdb\ufffd"]
    assert await log.claim(odd, odd, "hash", "srch_1") == Claim("new", "srch_1")
    assert await log.claim(odd, odd, "hash", "srch_2") == Claim("running", "srch_1")


async def test_the_latest_verdict_on_the_chosen_answer_is_the_trees_outcome(log: TreeLog) -> None:
    judged = make_tree(verdict=AnswerVerdict(0.0, "the answer is 24, not 25"))
    plain = make_tree()
    for tree in (judged, plain):
        await log.append(tree)

    async def heads() -> list[tuple[float | None, str | None]]:
        return [(row.outcome, row.outcome_source) for row in await log.list()]

    async def right() -> list[str]:
        return [row.tree_id for row in await log.list(filters=Filters(verdict="right"))]

    assert await heads() == [(None, None), (0.0, "verifier")]
    await log.add_feedback(plain.id, 1.0, node=1)
    assert await right() == [], "a verdict on another node says nothing of the answer"
    await asyncio.gather(*(log.add_feedback(t.id, 1.0, node=3) for t in (judged, plain)))
    assert await heads() == [(1.0, "human"), (1.0, "human")]
    assert await right() == [plain.id, judged.id]
    await log.add_feedback(judged.id, 0.5, node=3, source="verifier")
    assert await heads() == [(1.0, "human"), (0.5, "verifier")]
    entry = await log.get(judged.id)
    assert entry is not None
    assert (entry.outcome, entry.tree().verdict) == (0.5, judged.verdict)
    assert (await log.verify()).ok
