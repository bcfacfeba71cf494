"""Which releases there are, what their gates said, and which one is active."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ramify.treelog.errors import BadEntry, LogError, UnknownRelease
from ramify.treelog.records import Activation, ActivationKind, Release
from ramify.treelog.schema import activations, releases
from ramify.treelog.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Put:
    """A release's state and figures, as they replace what is recorded."""

    release_id: str
    state: str
    figures: str


def figures_json(figures: Mapping[str, Any]) -> str:
    try:
        return json.dumps(figures, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise BadEntry(f"a release's figures must be JSON: {error}") from error


async def record(tx: Transaction, items: Sequence[Put]) -> list[LogError | None]:
    for item in items:
        values = {"state": item.state, "figures": item.figures, "updated_at": tx.now}
        known = update(releases).where(releases.c.release_id == item.release_id).values(values)
        if not (await tx.conn.execute(known)).rowcount:
            new = {"release_id": item.release_id, "created_at": tx.now}
            await tx.conn.execute(insert(releases).values(values | new))
    return [None for _ in items]


async def activate(
    tx: Transaction, items: Sequence[tuple[str, str, ActivationKind]]
) -> list[Activation | LogError]:
    """Append activations (release id, note, kind)."""
    return [await _activate(tx, *item) for item in items]


async def _activate(
    tx: Transaction, release_id: str, note: str, kind: ActivationKind
) -> Activation | LogError:
    known = select(releases.c.release_id).where(releases.c.release_id == release_id)
    if (await tx.conn.execute(known)).first() is None:
        return UnknownRelease(f"no release {release_id} is recorded")
    last = (await tx.conn.execute(select(func.max(activations.c.id)))).scalar_one()
    activation = Activation((last or 0) + 1, release_id, note, tx.now, kind)
    values = {name: getattr(activation, name) for name in Activation.__slots__}
    await tx.conn.execute(insert(activations).values(values))
    return activation


async def every(engine: AsyncEngine) -> list[Release]:
    """By id."""
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
    """Newest first."""
    async with engine.connect() as conn:
        return await _history(conn)


async def _history(conn: AsyncConnection) -> list[Activation]:
    rows = await conn.execute(select(activations).order_by(activations.c.id.desc()))
    return [Activation(**row) for row in rows.mappings()]
