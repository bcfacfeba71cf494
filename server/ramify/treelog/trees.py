"""Writing and reading trees and later outcomes."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ramify.treelog.errors import BadEntry, DuplicateTree, LogError, UnknownTree
from ramify.treelog.idempotency import finish
from ramify.treelog.records import Feedback, Filters, Response, Source, Summary
from ramify.treelog.rows import feedback_of, feedback_problem, summary_of
from ramify.treelog.schema import SUMMARY, counter, idempotency, outcomes, plain, trees
from ramify.treelog.transaction import Transaction

Row = Mapping[Any, Any]
PAGE = 32
"""Records read at once by a consumer."""


@dataclass(frozen=True, slots=True)
class EncodedTree:
    """A tree to append: its row, and the idempotent response to keep with it, if any."""

    row: dict[str, Any]
    response: Response | None = None

    @property
    def size(self) -> int:
        """Bytes of the body, compressed, and of the response."""
        return len(self.row["body"]) + (len(self.response.body) if self.response else 0)


async def append(tx: Transaction, items: Sequence[EncodedTree]) -> list[int | LogError]:
    """Insert trees; an identical tree that is already there keeps the `seq` it has."""
    logged = await _logged(tx.conn, [item.row["tree_id"] for item in items])
    rows: list[Row] = []
    results: list[int | LogError] = []
    for item in items:
        tree_id, sha256 = item.row["tree_id"], item.row["sha256"]
        if tree_id not in logged:
            logged[tree_id] = (tx.draw(), sha256)
            rows.append(item.row | {"seq": tx.last})
        seq, found = logged[tree_id]
        results.append(seq if found == sha256 else DuplicateTree(f"another tree is logged as {tree_id}"))
    if rows:
        await tx.conn.execute(insert(trees), rows)
    kept = [i.response for i, r in zip(items, results, strict=True) if i.response and isinstance(r, int)]
    if kept:
        await finish(tx, kept)
    return results


async def _logged(conn: AsyncConnection, ids: list[str]) -> dict[str, tuple[int, str]]:
    found = await conn.execute(
        select(trees.c.tree_id, trees.c.seq, trees.c.sha256).where(trees.c.tree_id.in_(ids))
    )
    return {tree_id: (seq, sha256) for tree_id, seq, sha256 in found}


def feedback_row(
    outcome_id: str,
    tree_id: str,
    outcome: float,
    *,
    source: Source,
    key_id: str,
    node: int | None,
    answer: str | None,
    comment: str,
    train: bool,
) -> dict[str, Any]:
    """The row of a later verdict, without `seq` and time. Raises `BadEntry`."""
    if not (math.isfinite(outcome) and 0 <= outcome <= 1):
        raise BadEntry(f"an outcome lies in [0, 1], got {outcome!r}")
    if node is None and answer is None:
        raise BadEntry("a verdict needs the node that ends the answer, or the answer's text")
    return {
        "outcome_id": outcome_id,
        "tree_id": tree_id,
        "node": node,
        "answer": None if answer is None else plain(answer),
        "outcome": float(outcome),
        "source": source,
        "key_id": plain(key_id),
        "comment": plain(comment),
        "train": train,
    }


async def add_feedback(tx: Transaction, items: Sequence[dict[str, Any]]) -> list[Feedback | LogError]:
    """Insert verdicts; one whose `outcome_id` is already there was committed by an earlier attempt."""
    sizes = await _sizes(tx.conn, {item["tree_id"] for item in items})
    ids = [item["outcome_id"] for item in items]
    known = (await tx.conn.execute(select(outcomes).where(outcomes.c.outcome_id.in_(ids)))).mappings()
    results: dict[str, Feedback | LogError] = {row["outcome_id"]: feedback_of(row) for row in known}
    rows: list[Row] = []
    for item in items:
        if item["outcome_id"] in results:
            continue
        refusal = _refusal(item, sizes)
        if refusal is None:
            rows.append(item | {"seq": tx.draw(), "created_at": tx.now})
        results[item["outcome_id"]] = refusal or feedback_of(rows[-1])
    if rows:
        await tx.conn.execute(insert(outcomes), rows)
    for row in rows:
        chosen = (trees.c.tree_id == row["tree_id"], trees.c.answer_node == row["node"])
        await tx.conn.execute(update(trees).where(*chosen).values(verdict_seq=row["seq"]))
    return [results[i] for i in ids]


async def _sizes(conn: AsyncConnection, ids: Iterable[str]) -> dict[str, int]:
    found = await conn.execute(select(trees.c.tree_id, trees.c.n_nodes).where(trees.c.tree_id.in_(ids)))
    return {row.tree_id: row.n_nodes for row in found}


def _refusal(item: Row, sizes: Mapping[str, int]) -> LogError | None:
    tree_id, node = item["tree_id"], item["node"]
    if tree_id not in sizes:
        return UnknownTree(f"no tree {tree_id} in the log")
    if node is not None and not 0 <= node < sizes[tree_id]:
        return BadEntry(f"{tree_id} has nodes 0 to {sizes[tree_id] - 1}, got {node}")
    return None


async def remove(tx: Transaction, ids: Sequence[str]) -> list[bool | LogError]:
    """Delete trees with their verdicts and kept responses. Their `seq`s stay unused."""
    logged = await _logged(tx.conn, list(ids))
    await delete_trees(tx, list(logged))
    searches = ["srch_" + tree_id.removeprefix("tree_") for tree_id in logged]
    await tx.conn.execute(delete(idempotency).where(idempotency.c.search_id.in_(searches)))
    return [tree_id in logged for tree_id in ids]


async def delete_trees(tx: Transaction, ids: Sequence[str]) -> int:
    """Delete trees with their verdicts; returns how many verdicts there were."""
    verdicts = (await tx.conn.execute(delete(outcomes).where(outcomes.c.tree_id.in_(ids)))).rowcount
    await tx.conn.execute(delete(trees).where(trees.c.tree_id.in_(ids)))
    return verdicts


async def high_water(engine: AsyncEngine) -> int:
    """The last committed `seq`; 0 in an empty log."""
    async with engine.connect() as conn:
        last: int = (await conn.execute(select(counter.c.last))).scalar_one()
    return last


async def fetch(engine: AsyncEngine, tree_id: str) -> Row | None:
    query = _with_verdict(select(trees, *_LATER)).where(trees.c.tree_id == tree_id)
    async with engine.connect() as conn:
        row: Row | None = (await conn.execute(query)).mappings().one_or_none()
    return row


async def feedback_of_tree(engine: AsyncEngine, tree_id: str) -> list[Feedback]:
    query = select(outcomes).where(outcomes.c.tree_id == tree_id).order_by(outcomes.c.seq)
    async with engine.connect() as conn:
        rows = (await conn.execute(query)).mappings()
        return [feedback_of(row) for row in rows if feedback_problem(row) is None]


async def newest(engine: AsyncEngine, before: int | None, limit: int, filters: Filters) -> list[Summary]:
    query = _with_verdict(select(*SUMMARY, *_LATER)).where(*_conditions(filters))
    query = query.order_by(trees.c.seq.desc()).limit(limit)
    if before is not None:
        query = query.where(trees.c.seq < before)
    async with engine.connect() as conn:
        return [summary_of(row) for row in (await conn.execute(query)).mappings()]


def _with_verdict(query: Select[Any]) -> Select[Any]:
    """The query with the later verdict on each tree's chosen answer, if there is one."""
    return query.select_from(trees.outerjoin(outcomes, outcomes.c.seq == trees.c.verdict_seq))


_LATER = (outcomes.c.outcome.label("later_outcome"), outcomes.c.source.label("later_source"))


def _conditions(filters: Filters) -> list[ColumnElement[bool]]:
    exact = ("status", "model", "release", "algorithm", "task", "key_id")
    wanted = {name: getattr(filters, name) for name in exact}
    conditions = [trees.c[name] == value for name, value in wanted.items() if value is not None]
    if filters.tree_id is not None:
        conditions.append(trees.c.tree_id.startswith(filters.tree_id, autoescape=True))
    if filters.min_value is not None:
        conditions.append(trees.c.best_value >= filters.min_value)
    if filters.min_nodes is not None:
        conditions.append(trees.c.n_nodes >= filters.min_nodes)
    if filters.verdict is not None:
        conditions.append(_VERDICTS[filters.verdict])
    if filters.text:
        found = [c.icontains(filters.text, autoescape=True) for c in (trees.c.prompt, trees.c.answer)]
        conditions.append(found[0] | found[1])
    return conditions


_LATEST = func.coalesce(outcomes.c.outcome, trees.c.outcome)
_VERDICTS: dict[str, ColumnElement[bool]] = {
    "right": _LATEST >= 1,
    "wrong": _LATEST < 1,
    "none": _LATEST.is_(None),
}


async def pages(
    engine: AsyncEngine, after: int, up_to: int, *, page: int = PAGE
) -> AsyncIterator[list[tuple[str, Row]]]:
    """Rows of trees and outcomes in (after, up_to], by `seq`, as (kind, row); each page is its own
    transaction.
    """
    while after < up_to:
        async with engine.connect() as conn:
            found = [(kind, row) for kind in _TABLES for row in await _slice(conn, kind, after, up_to, page)]
        found.sort(key=lambda item: item[1]["seq"])
        # What lies past a full table's last row may have gaps that its next rows fill: keep the lowest
        # `page`.
        kept = found[:page]
        if kept:
            yield kept
        after = kept[-1][1]["seq"] if len(found) >= page else up_to


_TABLES = {"tree": trees, "outcome": outcomes}


async def _slice(conn: AsyncConnection, kind: str, after: int, up_to: int, limit: int) -> Sequence[Row]:
    seq = _TABLES[kind].c.seq
    query: Select[Any] = select(_TABLES[kind]).where(seq > after, seq <= up_to).order_by(seq).limit(limit)
    rows: Sequence[Row] = (await conn.execute(query)).mappings().all()
    return rows
