"""The rows of a fleet in PostgreSQL. Every look and every change locks the fleet's one row first, so that one happens
after another; one that a replica began and never ended is undone by the database within seconds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, replace

from sqlalchemy import Double, cast, delete, extract, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from ramify.fleet.decisions import FORGOTTEN, free_number, live, turn
from ramify.fleet.records import ActivationUnderWay, Epoch, FleetError, Replica, Step, View
from ramify.fleet.schema import SCRIPTS, VERSIONS, epochs, fleet, replicas
from ramify.treelog import StoreError, releases
from ramify.treelog.schema import upgrade
from ramify.treelog.store import Store, fleet_engine, parse_url, translated
from ramify.treelog.writer import Transaction

SLOWEST = 10.0
"""Seconds that a call other than a look may take."""


class FleetStore:
    """An open store. Make one with `open`. Raises `LogError` if the database fails."""

    def __init__(self, store: Store, patience: float) -> None:
        """Use `open` instead."""
        self._store = store
        self._patience = patience
        self._engine = fleet_engine(store, patience)
        self._left: set[asyncio.Task[None]] = set()
        """Tasks that close connections that did not answer."""

    @classmethod
    async def open(cls, url: str, patience: float) -> FleetStore:
        """Open the fleet of a log, creating or migrating its tables. patience: seconds that one look may take.

        Raises `FleetError` unless the log is on PostgreSQL."""
        store = parse_url(url)
        if store.kind != "postgresql":
            raise FleetError(
                f"fleet: its replicas share a log on PostgreSQL, and log is {store}: set log to postgresql://…"
            )
        opened = cls(store, patience)
        try:
            with translated(store):
                await upgrade(opened._engine, SCRIPTS, VERSIONS)
        except BaseException:
            await opened.close()
            raise
        return opened

    async def close(self) -> None:
        await asyncio.wait({asyncio.create_task(self._engine.dispose()), *self._left}, timeout=self._patience)

    async def has_epoch(self) -> bool:
        """Tell whether the fleet has an epoch, and so has had a replica."""
        async with self._transaction() as conn:
            return (await conn.execute(select(epochs.c.number).limit(1))).first() is not None

    async def join(self, name: str, mine: Replica, first: Epoch | None) -> View:
        """Add a replica whose engines are yet to start. first: what is committed from now on unless something is.

        Raises `FleetError` if the log belongs to another fleet, replicas of another version of Ramify are live, or no
        number is left."""
        async with self._transaction() as conn:
            row = {"id": 1, "name": name, "seen": 0.0, "since": 0.0}
            await conn.execute(upsert(fleet).values(row).on_conflict_do_nothing())
            now, theirs = await self._lock(conn)
            if theirs != name:
                raise FleetError(f"fleet.name: this log belongs to the fleet {theirs!r}, not {name!r}")
            if first is not None and (await conn.execute(select(epochs.c.number).limit(1))).first() is None:
                epoch = replace(
                    first, number=1, state="committed", created_at=now, deadline=now, ended_at=now
                )
                await conn.execute(insert(epochs).values(asdict(epoch)))
            view = await self._read(conn, now)
            others = {row.version for row in live(view)} - {mine.version}
            if others:
                raise FleetError(
                    f"the fleet {name!r} runs Ramify {', '.join(sorted(others))} and this is {mine.version}: "
                    "install that version, or stop the others first"
                )
            number = free_number(view) if mine.number is None else mine.number
            me = replace(mine, started_at=now, seen_at=now, number=number)
            await _put(conn, me)
            return view.having(me)

    async def look(self, mine: Replica) -> tuple[View, Step | None]:
        """Write a replica's state, move the activation on as far as it goes, and return what is to be done."""
        async with self._transaction(self._patience) as conn:
            before = await self._read(conn, (await self._lock(conn))[0])
            after, step = turn(await self._unless_rejected(conn, before), mine)
            for row in after.replicas.values():
                if row != before.replicas.get(row.id):
                    await _put(conn, row)
            if after.newest != before.newest:
                await self._ended(conn, before, after)
            await conn.execute(update(fleet).values(seen=after.seen, since=after.since))
            gone = [row.id for row in after.replicas.values() if row.seen_at < after.now - FORGOTTEN]
            if gone:
                await conn.execute(delete(replicas).where(replicas.c.id.in_(gone)))
        return after, step

    async def _unless_rejected(self, conn: AsyncConnection, view: View) -> View:
        """Return the view, its activation going back if the gate has rejected the release by now."""
        epoch = view.activation
        if epoch is None or epoch.state == "going_back" or not await releases.rejected(conn, epoch.release):
            return view
        return view.ending("going_back", releases.rejected_meanwhile(epoch.release))

    async def ask(self, wanted: Epoch, seconds: float) -> Epoch:
        """Begin an activation, and return its epoch; the committed one if that serves what is wanted.

        wanted: it gets its number and times here. seconds: after which it goes back. Raises `ActivationUnderWay`."""
        async with self._transaction() as conn:
            view = await self._read(conn, (await self._lock(conn))[0])
            if view.activation is not None:
                raise ActivationUnderWay(view.activation)
            if (view.committed.release, view.committed.content) == (wanted.release, wanted.content):
                return view.committed
            number, now = view.newest.number + 1, view.now
            asked = replace(wanted, number=number, created_at=now, deadline=now + seconds)
            await conn.execute(insert(epochs).values(asdict(asked)))
        return asked

    async def view(self) -> View:
        """Return the rows as they are."""
        async with self._transaction() as conn:
            return await self._read(conn, await _now(conn))

    async def epoch(self, number: int) -> Epoch:
        async with self._transaction() as conn:
            row = (await conn.execute(select(epochs).where(epochs.c.number == number))).mappings().one()
            return Epoch(**row)

    async def restore(self, replica: str) -> bool:
        """Take an evicted replica back; it catches up by itself. False if there is none of this id that is evicted."""
        async with self._transaction() as conn:
            await self._lock(conn)
            theirs = (replicas.c.id == replica) & replicas.c.evicted
            return bool((await conn.execute(update(replicas).where(theirs).values(evicted=False))).rowcount)

    async def leave(self, replica: str) -> None:
        """Take a replica out that has ended."""
        async with self._transaction() as conn:
            await self._lock(conn)
            await conn.execute(delete(replicas).where(replicas.c.id == replica))

    @asynccontextmanager
    async def _transaction(self, seconds: float = SLOWEST) -> AsyncIterator[AsyncConnection]:
        with translated(self._store):
            try:
                async with asyncio.timeout(seconds), self._engine.begin() as conn:
                    yield conn
            except TimeoutError as error:
                self._renew()
                raise StoreError(f"the fleet's database did not answer within {seconds:g} s") from error

    def _renew(self) -> None:
        """Go on with new connections: one whose statement was given up may be of no more use, or never close."""
        closing = asyncio.create_task(self._engine.dispose(), name="fleet-connections-left")
        self._left.add(closing)
        closing.add_done_callback(self._left.discard)
        self._engine = fleet_engine(self._store, self._patience)

    async def _lock(self, conn: AsyncConnection) -> tuple[float, str]:
        """Wait for the fleet's row; return the time once it is held, and the fleet's name."""
        name = (await conn.execute(select(fleet.c.name).with_for_update())).scalar_one()
        return await _now(conn), name

    async def _read(self, conn: AsyncConnection, now: float) -> View:
        seen, since = (await conn.execute(select(fleet.c.seen, fleet.c.since))).one()
        last = select(func.max(epochs.c.number)).scalar_subquery()
        served = select(func.max(epochs.c.number)).where(epochs.c.state == "committed").scalar_subquery()
        wanted = select(epochs).where(epochs.c.number.in_([last, served])).order_by(epochs.c.number)
        found = [Epoch(**row) for row in (await conn.execute(wanted)).mappings()]
        rows = [Replica(**row) for row in (await conn.execute(select(replicas))).mappings()]
        return View(now, {row.id: row for row in rows}, found[0], found[-1], seen, since)

    async def _ended(self, conn: AsyncConnection, before: View, after: View) -> None:
        """Write how far the activation has got; once it has ended, the history of releases too."""
        newest = after.newest
        values = {"state": newest.state, "ended_at": newest.ended_at, "error": newest.error}
        await conn.execute(update(epochs).where(epochs.c.number == newest.number).values(values))
        if newest.under_way:
            return
        tx = Transaction(conn, after.now, 0)
        await releases.ended(tx, newest.release, newest.error)
        if newest.state != "committed":
            return
        served, active = before.committed.release, await releases.newest(conn)
        if active != served:
            await releases.ended(tx, served, None)
            await releases.activate(tx, served, "served until now", "automatic")
        await releases.activate(tx, newest.release, newest.note, newest.kind)


async def _now(conn: AsyncConnection) -> float:
    """Return Unix seconds of the database's clock, as of now and not of the transaction's begin."""
    return float(
        (await conn.execute(select(cast(extract("epoch", func.clock_timestamp()), Double)))).scalar_one()
    )


async def _put(conn: AsyncConnection, row: Replica) -> None:
    values = asdict(row)
    await conn.execute(
        upsert(replicas).values(values).on_conflict_do_update(index_elements=["id"], set_=values)
    )
