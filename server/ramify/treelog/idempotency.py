"""One search for one `Idempotency-Key`: claimed before it starts, answered in the transaction that logs its tree.

A claim whose process died must not block its key for ever. On SQLite only one process writes, so opening the log
releases every running claim of other boots; on PostgreSQL a claim runs out, or is free once the claimer's fleet knows
that the process has ended. In each case the dead process can no longer finish it: an answer is kept only while its own
claim stands. A search that goes on from another claims that one
likewise, and keeps no answer.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import ColumnElement, delete, insert, select, update

from ramify.treelog.records import Claim, KeptAnswer
from ramify.treelog.rows import compress
from ramify.treelog.schema import idempotency
from ramify.treelog.writer import Transaction

_RUNNING, _DONE = "running", "done"


def kept_answer(
    key_id: str, key: str, search_id: str, body: bytes, keep_seconds: float = 86400.0
) -> KeptAnswer:
    """Make an answer to keep. Compresses it, so a long one is made in a thread."""
    return KeptAnswer(key_id, key, search_id, compress(body), keep_seconds)


async def claim(
    tx: Transaction,
    key_id: str,
    key: str,
    body_hash: str,
    search_id: str,
    *,
    boot_id: str,
    seconds: float,
    ended: Collection[str],
) -> Claim:
    """Claim a key for a search; see `TreeLog.claim`. The `body` of the answer is still compressed."""
    await purge(tx)
    of_key = (idempotency.c.key_id == key_id) & (idempotency.c.key == key)
    row = (await tx.conn.execute(select(idempotency).where(of_key))).mappings().one_or_none()
    if row is not None and row["state"] == _RUNNING and row["boot_id"] in ended:
        await tx.conn.execute(delete(idempotency).where(of_key))
        row = None
    if row is None:
        values = {
            "key_id": key_id,
            "key": key,
            "body_hash": body_hash,
            "search_id": search_id,
            "state": _RUNNING,
            "boot_id": boot_id,
            "expires_at": tx.now + seconds,
        }
        await tx.conn.execute(insert(idempotency).values(values))
        return Claim("new", search_id)
    holder = row["search_id"]
    if row["body_hash"] != body_hash:
        return Claim("other_body", holder)
    if row["state"] == _DONE:
        return Claim("answered", holder, row["body"])
    if (holder, row["boot_id"]) == (search_id, boot_id):
        return Claim("new", search_id)  # this very claim, committed by an attempt whose connection broke
    return Claim("running", holder)


async def finish(tx: Transaction, answer: KeptAnswer) -> bool:
    """Keep an answer. False if its claim is gone: it ran out, or its tree was deleted."""
    values = {
        "state": _DONE,
        "body": answer.compressed,
        "expires_at": tx.now + answer.keep_seconds,
    }
    mine = _claimed(answer.key_id, answer.key, answer.search_id)
    return (await tx.conn.execute(update(idempotency).where(*mine).values(values))).rowcount > 0


async def abandon(tx: Transaction, key_id: str, key: str, search_id: str) -> bool:
    """Free the key of a running claim; False if there is no such claim."""
    mine = (*_claimed(key_id, key, search_id), idempotency.c.state == _RUNNING)
    return (await tx.conn.execute(delete(idempotency).where(*mine))).rowcount > 0


def _claimed(key_id: str, key: str, search_id: str) -> tuple[ColumnElement[bool], ...]:
    return (
        idempotency.c.key_id == key_id,
        idempotency.c.key == key,
        idempotency.c.search_id == search_id,
    )


async def release_other_boots(tx: Transaction, boot_id: str) -> None:
    """Free the running claims of every boot but this one."""
    stale = (idempotency.c.state == _RUNNING, idempotency.c.boot_id != boot_id)
    await tx.conn.execute(delete(idempotency).where(*stale))


async def purge(tx: Transaction) -> int:
    """Forget claims and answers that have run out; return their number."""
    return (await tx.conn.execute(delete(idempotency).where(idempotency.c.expires_at <= tx.now))).rowcount
