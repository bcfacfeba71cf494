"""Upkeep of a log: expiry of old trees, and the proof that every row is what was written.

Expiry never takes a tree that a registered consumer has still to read. `verify` derives every hash again, reads every
body as a tree, and compares every column with its body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncEngine

from ramify.treelog.bodies import Bodies
from ramify.treelog.errors import CorruptTree
from ramify.treelog.idempotency import purge
from ramify.treelog.records import CorruptRow, ExpiryCounts, LogSize, ObjectBody, VerifyReport
from ramify.treelog.rows import columns_of, entry_of, feedback_of, feedback_problem
from ramify.treelog.schema import consumers, counter, feedback, trees
from ramify.treelog.trees import delete_trees, high_water, pages
from ramify.treelog.writer import Transaction

CHUNK = 256
"""Trees deleted in one transaction, so that appends are never held up for long."""
_BYTES = func.coalesce(trees.c.size, func.length(trees.c.body))

Conditions = Sequence[ColumnElement[bool]]
Progress = Callable[[int, int], None]
"""Called with (seq reached, high-water mark)."""


def expirable(made_before: float | None, keep_newest: int | None, last: int | None) -> Conditions:
    """Conditions on a tree that may be deleted: every consumer has read it and its verdicts, and it was made by
    `made_before` (Unix seconds) or its `seq` is at most `last`; either, if neither is given. The `keep_newest` newest
    trees stay in any case."""
    log_end: Any = select(counter.c.last).scalar_subquery()
    read = func.coalesce(select(func.min(consumers.c.cursor)).scalar_subquery(), log_end)
    unread_verdict = exists().where(feedback.c.tree_id == trees.c.tree_id, feedback.c.seq > read)
    conditions: list[ColumnElement[bool]] = [trees.c.seq <= read, ~unread_verdict]
    reasons: list[ColumnElement[bool]] = []
    if made_before is not None:
        reasons.append(trees.c.created_at <= made_before)
    if last is not None:
        reasons.append(trees.c.seq <= last)
    if reasons:
        conditions.append(or_(*reasons))
    if keep_newest is not None:
        newest = select(trees.c.seq).order_by(trees.c.seq.desc()).limit(1).offset(keep_newest)
        conditions.append(trees.c.seq <= func.coalesce(newest.scalar_subquery(), 0))
    return conditions


async def expire(tx: Transaction, conditions: Conditions) -> tuple[ExpiryCounts, list[ObjectBody]]:
    """Delete the oldest `CHUNK` trees that meet the conditions, with their verdicts; also claims that have run out.
    Return what was deleted, and the objects to remove after the commit."""
    oldest = select(trees.c.tree_id).where(*conditions).order_by(trees.c.seq).limit(CHUNK)
    ids = list((await tx.conn.execute(oldest)).scalars())
    verdicts, objects = await delete_trees(tx, ids) if ids else (0, [])
    return ExpiryCounts(len(ids), verdicts, await purge(tx)), objects


async def size(engine: AsyncEngine, conditions: Conditions = ()) -> LogSize:
    """Count and measure the trees that meet the conditions."""
    query = select(func.count(), func.coalesce(func.sum(_BYTES), 0), func.min(trees.c.created_at))
    async with engine.connect() as conn:
        count, size, oldest = (await conn.execute(query.where(*conditions))).one()
    return LogSize(count, int(size), oldest)


async def last_beyond(engine: AsyncEngine, most: int) -> int:
    """Return the greatest seq of a tree that, with all newer ones, takes more than `most` bytes; 0 if there is none."""
    size = func.sum(_BYTES).over(order_by=trees.c.seq.desc()).label("size")
    summed = select(trees.c.seq, size).subquery()
    query = select(func.coalesce(func.max(summed.c.seq), 0)).where(summed.c.size > most)
    async with engine.connect() as conn:
        return int((await conn.execute(query)).scalar_one())


async def verify(engine: AsyncEngine, bodies: Bodies, progress: Progress | None = None) -> VerifyReport:
    """Read the whole log up to its present high-water mark, a page at a time."""
    last = await high_water(engine)
    counts = {"tree": 0, "outcome": 0}
    bad: list[CorruptRow] = []
    seen: set[int] = set()
    async for page in pages(engine, bodies, 0, last):
        bad += await asyncio.to_thread(_check_page, page, seen)
        bad += await _orphans(engine, [row["seq"] for kind, row in page if kind == "outcome"])
        for kind, _ in page:
            counts[kind] += 1
        seen = {page[-1][1]["seq"]}
        if progress:
            progress(page[-1][1]["seq"], last)
    bad += await _stale_verdicts(engine)
    bad += await _beyond_counter(engine)
    return VerifyReport(counts["tree"], counts["outcome"], last, bad)


def _check_page(page: Sequence[tuple[str, Mapping[Any, Any]]], seen: set[int]) -> list[CorruptRow]:
    bad = []
    for kind, row in page:
        problems = _tree_problems(row) if kind == "tree" else _feedback_problems(row)
        if row["seq"] in seen:
            problems.append(f"seq {row['seq']} is taken twice")
        seen.add(row["seq"])
        bad += [CorruptRow(row["seq"], row["tree_id"], problem) for problem in problems]
    return bad


def _tree_problems(row: Mapping[Any, Any]) -> list[str]:
    try:
        tree = entry_of(row).tree()
    except CorruptTree as error:
        return [error.problem]
    derived = columns_of(tree)
    wrong = [name for name in derived if row[name] != derived[name]]
    return [f"{name} is {row[name]!r}, its body says {derived[name]!r}" for name in wrong]


def _feedback_problems(row: Mapping[Any, Any]) -> list[str]:
    problem = feedback_problem(feedback_of(row))
    return [] if problem is None else [problem]


async def _orphans(engine: AsyncEngine, seqs: Sequence[int]) -> list[CorruptRow]:
    """Find verdicts whose tree is gone, in one statement: a deletion meanwhile takes both or neither."""
    kept = exists().where(trees.c.tree_id == feedback.c.tree_id)
    query = select(feedback.c.seq, feedback.c.tree_id).where(feedback.c.seq.in_(seqs), ~kept)
    async with engine.connect() as conn:
        orphans = (await conn.execute(query.order_by(feedback.c.seq))).all()
    return [CorruptRow(seq, tree_id, "a verdict on no tree") for seq, tree_id in orphans]


async def _stale_verdicts(engine: AsyncEngine) -> list[CorruptRow]:
    """Find trees whose latest verdict is not the last one on their chosen answer."""
    on_answer = (feedback.c.tree_id == trees.c.tree_id) & (feedback.c.node == trees.c.answer_node)
    last = select(func.max(feedback.c.seq)).where(on_answer).correlate(trees).scalar_subquery()
    known = func.coalesce(trees.c.verdict_seq, 0)
    query = select(trees.c.seq, trees.c.tree_id).where(known != func.coalesce(last, 0)).order_by(trees.c.seq)
    async with engine.connect() as conn:
        stale = (await conn.execute(query)).all()
    return [CorruptRow(seq, tree_id, "its latest verdict is not the last one") for seq, tree_id in stale]


async def _beyond_counter(engine: AsyncEngine) -> list[CorruptRow]:
    """Find rows and cursors past the counter, which later appends would collide with."""
    bad = []
    async with engine.connect() as conn:
        for table in (trees, feedback):
            query = select(table.c.seq, table.c.tree_id, counter.c.last).where(table.c.seq > counter.c.last)
            rows = (await conn.execute(query)).all()
            bad += [
                CorruptRow(seq, tree_id, f"beyond the counter, which says {last}")
                for seq, tree_id, last in rows
            ]
        cursors = select(consumers.c.name, consumers.c.cursor, counter.c.last)
        beyond = (await conn.execute(cursors.where(consumers.c.cursor > counter.c.last))).all()
    return bad + [
        CorruptRow(at, "", f"consumer {name} is beyond the log's {last}") for name, at, last in beyond
    ]
