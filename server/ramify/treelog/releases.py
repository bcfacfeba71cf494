"""Releases that the log knows, the figures of their gates, and the history of which one was active."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import RowMapping, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ramify.treelog.errors import LogError
from ramify.treelog.records import Activation, ActivationKind, Release
from ramify.treelog.schema import activations, releases
from ramify.treelog.writer import Transaction

ACTIVATION_ERROR = "activation_error"
"""Key among a release's figures for the reason why its activation failed."""

REJECTED = "rejected"
"""State of a release that the gate has rejected: it is never activated."""


def figures_json(figures: Mapping[str, Any]) -> str:
    """Write a release's figures. Raises `LogError` if they are not JSON."""
    try:
        return json.dumps(figures, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise LogError(f"a release's figures must be JSON: {error}") from error


async def record(tx: Transaction, release_id: str, state: str, figures: str) -> None:
    """Record a release, replacing the state and figures that were recorded."""
    values = {"state": state, "figures": figures, "updated_at": tx.now}
    known = update(releases).where(releases.c.release_id == release_id).values(values)
    if not (await tx.conn.execute(known)).rowcount:
        new = {"release_id": release_id, "created_at": tx.now}
        await tx.conn.execute(insert(releases).values(values | new))


async def activate(tx: Transaction, release_id: str, note: str, kind: ActivationKind) -> Activation:
    """Append an activation. Raises `LogError` for a release that is not recorded."""
    known = select(releases.c.release_id).where(releases.c.release_id == release_id)
    if (await tx.conn.execute(known)).first() is None:
        raise LogError(f"no release {release_id} is recorded")
    last = (await tx.conn.execute(select(func.max(activations.c.id)))).scalar_one()
    activation = Activation((last or 0) + 1, release_id, note, tx.now, kind)
    await tx.conn.execute(insert(activations).values(asdict(activation)))
    return activation


async def ended(tx: Transaction, release_id: str, error: str | None) -> None:
    """Record how an activation of a release ended; what its gate has said of it stays."""
    row = await _locked(tx.conn, release_id)
    state = None if row is None else row["state"]
    figures = {} if row is None else json.loads(row["figures"])
    figures.pop(ACTIVATION_ERROR, None)
    if error is not None:
        figures[ACTIVATION_ERROR] = error[:1000]
        await record(tx, release_id, REJECTED if state == REJECTED else "failed", figures_json(figures))
    elif state in (None, "failed"):
        await record(tx, release_id, "available", figures_json(figures))


async def commit(tx: Transaction, release_id: str, note: str, kind: ActivationKind) -> Activation:
    """Append the activation of a release that is loaded. Raises `LogError` if the gate has rejected it by now."""
    if await rejected(tx.conn, release_id):
        raise LogError(rejected_meanwhile(release_id))
    await ended(tx, release_id, None)
    return await activate(tx, release_id, note, kind)


async def rejected(conn: AsyncConnection, release_id: str) -> bool:
    """Tell whether the gate has rejected a release, and let nobody change that before the transaction ends."""
    row = await _locked(conn, release_id)
    return row is not None and row["state"] == REJECTED


def rejected_meanwhile(release_id: str) -> str:
    return f"the gate rejected {release_id} while it was being activated"


async def _locked(conn: AsyncConnection, release_id: str) -> RowMapping | None:
    query = select(releases).where(releases.c.release_id == release_id).with_for_update()
    return (await conn.execute(query)).mappings().first()


async def newest(conn: AsyncConnection) -> str | None:
    """Return the release of the newest activation."""
    return next((row.release_id for row in await _history(conn)), None)


async def every(engine: AsyncEngine) -> list[Release]:
    """Return all releases by id."""
    async with engine.connect() as conn:
        history = await _history(conn)
        rows = (await conn.execute(select(releases).order_by(releases.c.release_id))).mappings().all()
    times = {a.release_id: a.activated_at for a in reversed(history)}
    active = history[0].release_id if history else None
    return [
        Release(
            **{**row, "figures": json.loads(row["figures"])},
            activated_at=times.get(row["release_id"]),
            active=row["release_id"] == active,
        )
        for row in rows
    ]


async def activations_of(engine: AsyncEngine) -> list[Activation]:
    """Return all activations, newest first."""
    async with engine.connect() as conn:
        return await _history(conn)


async def _history(conn: AsyncConnection) -> list[Activation]:
    rows = await conn.execute(select(activations).order_by(activations.c.id.desc()))
    return [Activation(**row) for row in rows.mappings()]
