"""Proves a log: every hash derived again, every body read as a tree, every column compared with its body."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import exists, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from ramify.treelog.errors import CorruptTree
from ramify.treelog.records import BadRow, VerifyReport
from ramify.treelog.rows import columns_of, entry_of, feedback_problem
from ramify.treelog.schema import consumers, counter, outcomes, trees
from ramify.treelog.trees import high_water, pages

Progress = Callable[[int, int], None]
"""Called with (seq reached, high-water mark)."""


async def verify(engine: AsyncEngine, progress: Progress | None = None) -> VerifyReport:
    """Reads the whole log up to its present high-water mark, a page at a time."""
    last = await high_water(engine)
    counts = {"tree": 0, "outcome": 0}
    bad: list[BadRow] = []
    seen: set[int] = set()
    async for page in pages(engine, 0, last):
        bad += await asyncio.to_thread(_check_page, page, seen)
        bad += await _orphans(engine, [row["seq"] for kind, row in page if kind == "outcome"])
        for kind, _ in page:
            counts[kind] += 1
        seen = {page[-1][1]["seq"]}
        if progress:
            progress(page[-1][1]["seq"], last)
    bad += await _stale_verdicts(engine)
    bad += await _beyond(engine)
    return VerifyReport(counts["tree"], counts["outcome"], last, bad)


def _check_page(page: Sequence[tuple[str, Mapping[Any, Any]]], seen: set[int]) -> list[BadRow]:
    bad = []
    for kind, row in page:
        problems = check_tree(row) if kind == "tree" else check_feedback(row)
        if row["seq"] in seen:
            problems.append(f"seq {row['seq']} is taken twice")
        seen.add(row["seq"])
        bad += [BadRow(row["seq"], row["tree_id"], problem) for problem in problems]
    return bad


def check_tree(row: Mapping[Any, Any]) -> list[str]:
    """What is wrong with a tree's row; nothing if it is sound."""
    try:
        tree = entry_of(row).tree()
    except CorruptTree as error:
        return [error.problem]
    derived = columns_of(tree)
    wrong = [name for name in derived if row[name] != derived[name]]
    return [f"{name} is {row[name]!r}, its body says {derived[name]!r}" for name in wrong]


def check_feedback(row: Mapping[Any, Any]) -> list[str]:
    """What is wrong with an outcome's row; nothing if it is sound."""
    problem = feedback_problem(row)
    return [] if problem is None else [problem]


async def _orphans(engine: AsyncEngine, seqs: Sequence[int]) -> list[BadRow]:
    """Verdicts whose tree is gone, in one statement: a deletion meanwhile takes both or neither."""
    kept = exists().where(trees.c.tree_id == outcomes.c.tree_id)
    query = select(outcomes.c.seq, outcomes.c.tree_id).where(outcomes.c.seq.in_(seqs), ~kept)
    async with engine.connect() as conn:
        found = (await conn.execute(query.order_by(outcomes.c.seq))).all()
    return [BadRow(seq, tree_id, "a verdict on no tree") for seq, tree_id in found]


async def _stale_verdicts(engine: AsyncEngine) -> list[BadRow]:
    """Trees whose latest verdict is not the last one on their chosen answer."""
    on_answer = (outcomes.c.tree_id == trees.c.tree_id) & (outcomes.c.node == trees.c.answer_node)
    last = select(func.max(outcomes.c.seq)).where(on_answer).correlate(trees).scalar_subquery()
    known = func.coalesce(trees.c.verdict_seq, 0)
    query = select(trees.c.seq, trees.c.tree_id).where(known != func.coalesce(last, 0)).order_by(trees.c.seq)
    async with engine.connect() as conn:
        found = (await conn.execute(query)).all()
    return [BadRow(seq, tree_id, "its latest verdict is not the last one") for seq, tree_id in found]


async def _beyond(engine: AsyncEngine) -> list[BadRow]:
    """Rows and cursors past the counter, which later appends would collide with."""
    bad = []
    async with engine.connect() as conn:
        for table in (trees, outcomes):
            query = select(table.c.seq, table.c.tree_id, counter.c.last).where(table.c.seq > counter.c.last)
            rows = (await conn.execute(query)).all()
            bad += [
                BadRow(seq, tree_id, f"beyond the counter, which says {last}") for seq, tree_id, last in rows
            ]
        cursors = select(consumers.c.name, consumers.c.cursor, counter.c.last)
        beyond = (await conn.execute(cursors.where(consumers.c.cursor > counter.c.last))).all()
    return bad + [BadRow(at, "", f"consumer {name} is beyond the log's {last}") for name, at, last in beyond]
