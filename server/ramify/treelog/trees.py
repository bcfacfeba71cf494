"""Writing and reading trees, and feedback on them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ramify.treelog.bodies import Bodies, Row
from ramify.treelog.errors import LogError
from ramify.treelog.idempotency import finish
from ramify.treelog.records import Feedback, Filters, KeptAnswer, ObjectBody, Summary
from ramify.treelog.rows import feedback_of, feedback_problem, summary_of
from ramify.treelog.schema import SUMMARY, checkpoints, counter, feedback, idempotency, trees
from ramify.treelog.writer import Transaction

INTERRUPTED = "interrupted"
"""Status of a tree that was made of a checkpoint."""
PAGE = 32
"""Records read at once by a consumer."""


@dataclass(frozen=True, slots=True)
class EncodedTree:
    """A tree to append: its row, and the answer to keep with it for an idempotency key, if any."""

    row: dict[str, Any]
    answer: KeptAnswer | None = None

    @property
    def size(self) -> int:
        """Bytes of the body and of the answer, both compressed."""
        return int(self.row["size"]) + (len(self.answer.compressed) if self.answer else 0)


Appended = tuple[int, Sequence[ObjectBody]]
"""The `seq` of a tree, and the objects to remove after the commit."""


async def append(tx: Transaction, items: Sequence[EncodedTree]) -> list[Appended | LogError]:
    """Insert trees, and remove the checkpoints of their searches; an identical tree that is already there keeps the
    `seq` it has. A tree that was logged as interrupted while its server could not be heard gives way to the whole
    one, which takes over the feedback on it, unless another search goes on from it.

    If none of the trees is there, the lock is taken with their numbers and held for the writes alone: one that is
    logged meanwhile has the store refuse the insert. If one is there, everything is read again under the lock."""
    ids = [item.row["tree_id"] for item in items]
    logged = await _logged(tx.conn, ids)
    replaced: dict[str, list[ObjectBody]] = {}
    if logged:
        if not tx.locked:
            await tx.lock()
        whole = [item.row["tree_id"] for item in items if item.row["status"] != INTERRUPTED]
        replaced = await _remove_interrupted(tx, whole)
        logged = await _logged(tx.conn, ids)
    logged |= await _insert(tx, [item.row for item in items if item.row["tree_id"] not in logged])
    if replaced:
        await _count_feedback(tx, list(replaced))
    results: list[Appended | LogError] = []
    for item in items:
        tree_id = item.row["tree_id"]
        seq, sha256 = logged[tree_id]
        fits = sha256 == item.row["sha256"]
        objects = replaced.get(tree_id, ())
        results.append((seq, objects) if fits else LogError(f"another tree is logged as {tree_id}"))
    for item, result in zip(items, results, strict=True):
        if item.answer and not isinstance(result, LogError):
            await finish(tx, item.answer)
    return results


async def _insert(tx: Transaction, rows: Sequence[Row]) -> dict[str, tuple[int, str]]:
    """Insert the rows of new trees, of several of one id the first, and remove the checkpoints of their searches.
    Return the `seq` and hash of each."""
    new: dict[str, Row] = {}
    for row in rows:
        new.setdefault(row["tree_id"], row)
    if not new:
        return {}
    seqs = await tx.draw_many(len(new))
    numbered = [{**row, "seq": seq} for row, seq in zip(new.values(), seqs, strict=True)]
    await tx.conn.execute(insert(trees), numbered)
    await tx.conn.execute(delete(checkpoints).where(checkpoints.c.tree_id.in_(list(new))))
    return {row["tree_id"]: (row["seq"], row["sha256"]) for row in numbered}


async def _remove_interrupted(tx: Transaction, ids: Sequence[str]) -> dict[str, list[ObjectBody]]:
    """Remove those of the trees that are logged as interrupted, and that no search goes on from; the feedback on them
    stays. Return the objects of each to remove after the commit."""
    logged = select(trees.c.continues).where(trees.c.continues.in_(ids))
    running = select(checkpoints.c.continues).where(checkpoints.c.continues.in_(ids))
    query = select(trees.c.tree_id, trees.c.store, trees.c.sha256)
    query = query.where(
        trees.c.tree_id.in_(ids), trees.c.status == INTERRUPTED, trees.c.tree_id.not_in(logged.union(running))
    )
    rows = (await tx.conn.execute(query)).all()
    if rows:
        await tx.conn.execute(delete(trees).where(trees.c.tree_id.in_([row.tree_id for row in rows])))
    return {row.tree_id: [] if row.store is None else [(row.store, row.sha256)] for row in rows}


async def _count_feedback(tx: Transaction, ids: Sequence[str]) -> None:
    """Set the latest verdict on the chosen answer of trees anew."""
    on_answer = (feedback.c.tree_id == trees.c.tree_id) & (feedback.c.node == trees.c.answer_node)
    last = select(func.max(feedback.c.seq)).where(on_answer).correlate(trees).scalar_subquery()
    await tx.conn.execute(update(trees).where(trees.c.tree_id.in_(ids)).values(verdict_seq=last))


async def _logged(conn: AsyncConnection, ids: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Return the `seq` and hash of those trees that are in the log."""
    query = select(trees.c.tree_id, trees.c.seq, trees.c.sha256).where(trees.c.tree_id.in_(ids))
    return {tree_id: (seq, sha256) for tree_id, seq, sha256 in await conn.execute(query)}


async def add_feedback(tx: Transaction, given: Feedback) -> Feedback:
    """Insert feedback under the next `seq`; what is there already was committed by an earlier attempt."""
    known = select(feedback).where(feedback.c.outcome_id == given.outcome_id)
    if row := (await tx.conn.execute(known)).mappings().one_or_none():
        return feedback_of(row)
    size = select(trees.c.n_nodes).where(trees.c.tree_id == given.tree_id)
    n_nodes = (await tx.conn.execute(size)).scalar_one_or_none()
    if n_nodes is None:
        raise LogError(f"no tree {given.tree_id} in the log")
    if given.node is not None and not 0 <= given.node < n_nodes:
        raise LogError(f"{given.tree_id} has nodes 0 to {n_nodes - 1}, got {given.node}")
    added = replace(given, seq=tx.draw(), created_at=tx.now)
    await tx.conn.execute(insert(feedback).values(asdict(added)))
    on_answer = (trees.c.tree_id == added.tree_id, trees.c.answer_node == added.node)
    await tx.conn.execute(update(trees).where(*on_answer).values(verdict_seq=added.seq))
    return added


async def remove(tx: Transaction, tree_id: str) -> list[ObjectBody] | None:
    """Delete a tree with its feedback and the kept answer of its search. Return the objects to remove after the commit;
    `None` if there is no such tree. Its `seq` is not used again."""
    if not await _logged(tx.conn, [tree_id]):
        return None
    _, objects = await delete_trees(tx, [tree_id])
    search_id = "srch_" + tree_id.removeprefix("tree_")
    await tx.conn.execute(delete(idempotency).where(idempotency.c.search_id == search_id))
    return objects


async def delete_trees(tx: Transaction, ids: Sequence[str]) -> tuple[int, list[ObjectBody]]:
    """Delete trees with their feedback; return how many outcomes that were, and the objects to remove after the
    commit."""
    outcomes = (await tx.conn.execute(delete(feedback).where(feedback.c.tree_id.in_(ids)))).rowcount
    placed = select(trees.c.store, trees.c.sha256).where(trees.c.tree_id.in_(ids), trees.c.store.is_not(None))
    objects = [(store, sha256) for store, sha256 in await tx.conn.execute(placed)]
    await tx.conn.execute(delete(trees).where(trees.c.tree_id.in_(ids)))
    return outcomes, objects


async def high_water(engine: AsyncEngine) -> int:
    """Return the last committed `seq`; 0 in an empty log."""
    async with engine.connect() as conn:
        last: int = (await conn.execute(select(counter.c.last))).scalar_one()
    return last


async def fetch(engine: AsyncEngine, bodies: Bodies, tree_id: str) -> Row | None:
    """Return the row of a tree with its body, and the feedback on its answer."""
    query = _with_feedback(select(trees, *_LATER)).where(trees.c.tree_id == tree_id)
    async with engine.connect() as conn:
        row: Row | None = (await conn.execute(query)).mappings().one_or_none()
    filled = await bodies.filled([] if row is None else [row])
    return filled[0] if filled else None


async def feedback_on(engine: AsyncEngine, tree_id: str) -> list[Feedback]:
    """Return the sound feedback on a tree, oldest first."""
    query = select(feedback).where(feedback.c.tree_id == tree_id).order_by(feedback.c.seq)
    async with engine.connect() as conn:
        given = [feedback_of(row) for row in (await conn.execute(query)).mappings()]
    return [one for one in given if feedback_problem(one) is None]


async def newest(engine: AsyncEngine, before: int | None, limit: int, filters: Filters) -> list[Summary]:
    query = _with_feedback(select(*SUMMARY, *_LATER)).where(*_conditions(filters))
    query = query.order_by(trees.c.seq.desc()).limit(limit)
    if before is not None:
        query = query.where(trees.c.seq < before)
    async with engine.connect() as conn:
        return [summary_of(row) for row in (await conn.execute(query)).mappings()]


def _with_feedback(query: Select[Any]) -> Select[Any]:
    """Join the later verdict on each tree's chosen answer to a query, if there is one."""
    return query.select_from(trees.outerjoin(feedback, feedback.c.seq == trees.c.verdict_seq))


_LATER = (feedback.c.outcome.label("later_outcome"), feedback.c.source.label("later_source"))


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
        in_prompt, in_answer = (
            column.icontains(filters.text, autoescape=True) for column in (trees.c.prompt, trees.c.answer)
        )
        conditions.append(in_prompt | in_answer)
    return conditions


_LATEST = func.coalesce(feedback.c.outcome, trees.c.outcome)
_VERDICTS: dict[str, ColumnElement[bool]] = {
    "right": _LATEST >= 1,
    "wrong": _LATEST < 1,
    "none": _LATEST.is_(None),
}


async def pages(
    engine: AsyncEngine, bodies: Bodies, after: int, up_to: int, *, page: int = PAGE
) -> AsyncIterator[list[tuple[str, Row]]]:
    """Yield the rows of trees, with their bodies, and of feedback in (after, up_to], by `seq`, as (kind, row), each
    page from a transaction of its own."""
    while after < up_to:
        async with engine.connect() as conn:
            rows = [(kind, row) for kind in _TABLES for row in await _slice(conn, kind, after, up_to, page)]
        rows.sort(key=lambda item: item[1]["seq"])
        # Beyond the last row of a table that filled its slice, that table's next rows are missing: keep the lowest
        # `page` rows, which have no such gap.
        kept = rows[:page]
        if filled := await _filled(bodies, kept):
            yield filled
        after = kept[-1][1]["seq"] if len(rows) >= page else up_to


async def _filled(bodies: Bodies, rows: Sequence[tuple[str, Row]]) -> list[tuple[str, Row]]:
    """Put bodies into the rows of trees; a tree that was deleted meanwhile is left out."""
    filled = {row["seq"]: row for row in await bodies.filled([row for kind, row in rows if kind == "tree"])}
    page = [(kind, row if kind == "outcome" else filled.get(row["seq"])) for kind, row in rows]
    return [(kind, row) for kind, row in page if row is not None]


_TABLES = {"tree": trees, "outcome": feedback}


async def _slice(conn: AsyncConnection, kind: str, after: int, up_to: int, limit: int) -> Sequence[Row]:
    seq = _TABLES[kind].c.seq
    query: Select[Any] = select(_TABLES[kind]).where(seq > after, seq <= up_to).order_by(seq).limit(limit)
    rows: Sequence[Row] = (await conn.execute(query)).mappings().all()
    return rows
