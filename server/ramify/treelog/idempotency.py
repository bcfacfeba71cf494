"""One search for one `Idempotency-Key`: claimed before it starts, answered in the transaction that logs its
tree.

A claim whose process died must not block its key for ever. On SQLite only one process writes, so opening
the log releases every running claim of other boots; on PostgreSQL a claim runs out. Either way the dead
process can no longer finish it: an answer is kept only while its own claim stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, delete, insert, select, update

from ramify.treelog.errors import LogError
from ramify.treelog.records import Claim, Conflict, New, Replay, Response, Running
from ramify.treelog.rows import compress, decompress
from ramify.treelog.schema import idempotency
from ramify.treelog.transaction import Transaction

_RUNNING, _DONE = "running", "done"


@dataclass(frozen=True, slots=True)
class Ask:
    """A claim asked for; see `TreeLog.claim`."""

    key_id: str
    key: str
    body_hash: str
    search_id: str
    boot_id: str
    seconds: float


async def claim(tx: Transaction, items: Sequence[Ask]) -> list[Claim | LogError]:
    await tx.conn.execute(delete(idempotency).where(idempotency.c.expires_at <= tx.now))
    return [await _claim(tx, item) for item in items]


async def _claim(tx: Transaction, ask: Ask) -> Claim:
    here = (idempotency.c.key_id == ask.key_id) & (idempotency.c.key == ask.key)
    row = (await tx.conn.execute(select(idempotency).where(here))).mappings().one_or_none()
    if row is None:
        values = {
            "key_id": ask.key_id,
            "key": ask.key,
            "body_hash": ask.body_hash,
            "search_id": ask.search_id,
            "state": _RUNNING,
            "boot_id": ask.boot_id,
            "expires_at": tx.now + ask.seconds,
        }
        await tx.conn.execute(insert(idempotency).values(values))
        return New()
    if row["body_hash"] != ask.body_hash:
        return Conflict(row["search_id"])
    if row["state"] == _DONE:
        return Replay(row["search_id"], row["status"], await asyncio.to_thread(decompress, row["body"]))
    if (row["search_id"], row["boot_id"]) == (ask.search_id, ask.boot_id):
        return New()  # this very claim, committed by an attempt whose connection broke
    return Running(row["search_id"])


async def finish(tx: Transaction, items: Sequence[Response]) -> list[bool | LogError]:
    """Keep answers. False where the claim is gone: it ran out, or its tree was deleted."""
    return [await _finish(tx, item) for item in items]


async def _finish(tx: Transaction, item: Response) -> bool:
    values = {
        "state": _DONE,
        "status": item.status,
        "body": await asyncio.to_thread(compress, item.body),
        "expires_at": tx.now + item.keep_seconds,
    }
    mine = _mine(item.key_id, item.key, item.search_id)
    return (await tx.conn.execute(update(idempotency).where(*mine).values(values))).rowcount > 0


async def abandon(tx: Transaction, items: Sequence[tuple[str, str, str]]) -> list[bool | LogError]:
    """Free the keys (key id, key, search id) of running claims."""
    results: list[bool | LogError] = []
    for item in items:
        running = (*_mine(*item), idempotency.c.state == _RUNNING)
        results.append((await tx.conn.execute(delete(idempotency).where(*running))).rowcount > 0)
    return results


def _mine(key_id: str, key: str, search_id: str) -> tuple[ColumnElement[bool], ...]:
    return (
        idempotency.c.key_id == key_id,
        idempotency.c.key == key,
        idempotency.c.search_id == search_id,
    )


async def release_other_boots(tx: Transaction, boots: Sequence[str]) -> list[int | LogError]:
    """Free the running claims of every boot but the given one."""
    stale = (idempotency.c.state == _RUNNING, idempotency.c.boot_id.not_in(boots))
    freed = (await tx.conn.execute(delete(idempotency).where(*stale))).rowcount
    return [freed for _ in boots]


async def purge(tx: Transaction) -> int:
    return (await tx.conn.execute(delete(idempotency).where(idempotency.c.expires_at <= tx.now))).rowcount
