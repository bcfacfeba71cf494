"""Checkpoints: running searches as they last were, so that the death of their server costs little.

A search has at most one, which is replaced in place and goes in the transaction that logs its finished tree. Its server
renews the lease on its checkpoints while it lives. One whose lease has run out is of a search that nobody runs any
more: it is logged, as `interrupted`; so is one of a process that is known to have ended. On SQLite the one process that
writes is this one, so those of every other boot have run out; on PostgreSQL the database's clock decides, as servers'
clocks differ.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, delete, exists, func, insert, literal, or_, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from ramify.search.codec import BadTree, tree_from_dict
from ramify.search.run import close_interrupted
from ramify.search.tree import Tree
from ramify.treelog.errors import LogError
from ramify.treelog.rows import compress, decompress, row_of, tree_json
from ramify.treelog.schema import checkpoints, trees
from ramify.treelog.trees import EncodedTree, append
from ramify.treelog.writer import Transaction

Row = Mapping[Any, Any]


def checkpoint_row(tree: Tree, key_id: str) -> dict[str, Any]:
    """Return the row of a running search's snapshot, all but what says who keeps it. Raises `LogError`."""
    try:
        body = tree_json(tree)
    except (TypeError, ValueError) as error:
        raise LogError(f"{tree.id} cannot be written as JSON: {error}") from error
    return {
        "tree_id": tree.id,
        "key_id": key_id,
        "continues": tree.continues.tree if tree.continues else None,
        "sha256": hashlib.sha256(body).hexdigest(),
        "body": compress(body),
    }


async def put(tx: Transaction, row: Mapping[str, Any], boot_id: str, lease_seconds: float) -> bool:
    """Write a checkpoint in the place of the search's last one; False, and nothing, if its tree is logged already."""
    tree_id = row["tree_id"]
    if (await tx.conn.execute(select(exists().where(trees.c.tree_id == tree_id)))).scalar_one():
        return False
    await remove(tx, [tree_id])
    held = {"boot_id": boot_id, "lease_seconds": lease_seconds, "renewed_at": _now(tx)}
    await tx.conn.execute(insert(checkpoints).values({**row, **held}))
    return True


async def remove(tx: Transaction, tree_ids: Sequence[str]) -> None:
    await tx.conn.execute(delete(checkpoints).where(checkpoints.c.tree_id.in_(tree_ids)))


async def renew(tx: Transaction, boot_id: str) -> int:
    """Renew the lease on every checkpoint of a boot; return their number."""
    mine = checkpoints.c.boot_id == boot_id
    return (await tx.conn.execute(update(checkpoints).where(mine).values(renewed_at=_now(tx)))).rowcount


async def owner(engine: AsyncEngine, tree_id: str) -> tuple[str, str] | None:
    """Return the API key of a search that has a checkpoint, and the process that keeps it; `None` if it has none."""
    query = select(checkpoints.c.key_id, checkpoints.c.boot_id).where(checkpoints.c.tree_id == tree_id)
    async with engine.connect() as conn:
        row = (await conn.execute(query)).one_or_none()
    return None if row is None else (row.key_id, row.boot_id)


async def continuation(engine: AsyncEngine, tree_id: str) -> str | None:
    """Return the tree that goes on from this one, logged or running; `None` if there is none."""
    async with engine.connect() as conn:
        for table in (trees, checkpoints):
            query = select(table.c.tree_id).where(table.c.continues == tree_id).limit(1)
            if found := (await conn.execute(query)).scalar_one_or_none():
                return str(found)
    return None


async def lapsed(tx: Transaction, boot_id: str, ended: Collection[str], after: str) -> Row | None:
    """Return the first checkpoint whose search nobody runs any more, of those of trees beyond `after` in the order of
    their ids; `None` if there is none."""
    query = select(checkpoints).where(*_lapsed(tx, boot_id, ended), checkpoints.c.tree_id > after)
    query = query.order_by(checkpoints.c.tree_id).limit(1)
    row: Row | None = (await tx.conn.execute(query)).mappings().one_or_none()
    return row


def interrupted(row: Row) -> EncodedTree:
    """Make the tree to log of a checkpoint. Raises `LogError` if its body is not what was written."""
    try:
        tree = tree_from_dict(json.loads(decompress(row["body"])))
    except (ValueError, BadTree) as error:
        raise LogError(f"the checkpoint of {row['tree_id']} cannot be read: {error}") from error
    close_interrupted(tree)
    return EncodedTree(row_of(tree, row["key_id"]))


async def log_interrupted(
    tx: Transaction, row: Row, encoded: EncodedTree | None, boot_id: str, ended: Collection[str]
) -> bool:
    """Log the tree made of a lapsed checkpoint in its place; without a tree, only remove it. False, and nothing, if its
    server has renewed it or another one was faster. Raises `LogError`, and the checkpoint stays, if another tree is
    logged under its id."""
    same = (checkpoints.c.tree_id == row["tree_id"], checkpoints.c.renewed_at == row["renewed_at"])
    query = select(checkpoints.c.tree_id).where(*same, *_lapsed(tx, boot_id, ended)).with_for_update()
    if (await tx.conn.execute(query)).first() is None:
        return False
    if encoded is not None:
        (result,) = await append(tx, [encoded])
        if isinstance(result, LogError):  # nothing has changed so far, as the writer asks of a refusal
            raise result
    await remove(tx, [row["tree_id"]])
    return True


def _lapsed(tx: Transaction, boot_id: str, ended: Collection[str]) -> tuple[ColumnElement[bool], ...]:
    sqlite = tx.conn.dialect.name == "sqlite"
    due = checkpoints.c.renewed_at + checkpoints.c.lease_seconds < _now(tx)
    known = checkpoints.c.boot_id.in_(ended)
    return (checkpoints.c.boot_id != boot_id, or_(literal(sqlite), due, known))


def _now(tx: Transaction) -> ColumnElement[Any]:
    """Return the time by the clock that all servers on this log share, in Unix seconds."""
    if tx.conn.dialect.name == "sqlite":
        return literal(tx.now)
    return func.extract("epoch", func.clock_timestamp())
