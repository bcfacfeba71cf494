"""The bodies of trees: they lie in their rows, or as objects of a store, which the rows then name.

New bodies go into the store of the settings, if there is one. Those that were logged before stay where they are, so a
log may have bodies in its rows and in several stores; readers see no difference.

**Object first, row second.** An object is made create-only, under the sha256 of the tree's JSON, before its row is
committed, so every row has its body, and a write that is tried again finds it made. Deletion goes the other way: the
rows, then the objects. A kill between the two leaves an object that no row names, never a row without its object.
`sweep` removes such objects once they are old: a young one's row may be about to come. So a write that finds its object
made makes it young again.

**One log a store** (2026-11-29). A sweep would take the bodies of another log for its own leftovers. So each store
holds a mark, the log knows the marks of its stores, and a store with another one is refused. The mark also tells a
store that is away (an empty folder where a disk is not mounted, a bucket made anew) from one that has lost an object.
"""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from ramify.objects import (
    ObjectMissing,
    ObjectOptions,
    ObjectStore,
    ObjectStoreError,
    folder_of,
    open_store,
)
from ramify.treelog.errors import LogError, StoreError
from ramify.treelog.records import ObjectBody
from ramify.treelog.schema import object_stores, trees
from ramify.treelog.writer import Transaction

logger = logging.getLogger(__name__)
Row = Mapping[Any, Any]
Result = TypeVar("Result")
MARK = "ramify-log"
"""Name of the object that holds a store's mark."""
FOLDER = "trees"
_NAME = re.compile(rf"{FOLDER}/[0-9a-f]{{2}}/([0-9a-f]{{64}})")
_SHARDS = [f"{FOLDER}/{first:02x}" for first in range(256)]
_CHUNK = 500
_PATIENCE = 3
"""Longest time for one body, waiting for its turn included, over the deadline of a request."""


@dataclass(frozen=True, slots=True)
class Place:
    """A store of bodies, as the log knows it."""

    id: int
    url: str
    mark: str
    used: bool
    """True if it has its mark by now."""


def object_name(sha256: str) -> str:
    """Return the name of the object that holds a body, by the hash of the tree's JSON."""
    return f"{FOLDER}/{sha256[:2]}/{sha256}"


async def register(tx: Transaction, url: str) -> Place:
    """Return the log's place of this URL; a new one if there is none."""
    known = select(object_stores).where(object_stores.c.url == url)
    row = (await tx.conn.execute(known)).mappings().one_or_none()
    if row is not None:
        named = select(trees.c.seq).where(trees.c.store == row["id"]).order_by(trees.c.seq.desc()).limit(1)
        return Place(**row, used=(await tx.conn.execute(named)).first() is not None)
    last = (await tx.conn.execute(select(func.max(object_stores.c.id)))).scalar_one()
    place = Place((last or 0) + 1, url, uuid.uuid4().hex, used=False)
    await tx.conn.execute(insert(object_stores).values(id=place.id, url=url, mark=place.mark))
    return place


class Bodies:
    """The bodies of one open log. Belongs to the event loop of its calls; stores are asked in threads."""

    def __init__(self, options: ObjectOptions, reads: AsyncEngine) -> None:
        self._options = options
        self._reads = reads
        self._pool = ThreadPoolExecutor(options.parallel, thread_name_prefix="ramify-bodies")
        self._stores: dict[int, tuple[Place, ObjectStore]] = {}
        self._new: int | None = None
        """Id of the store of new bodies; `None`: they lie in their rows."""

    async def begin(self, place: Place) -> None:
        """Put new bodies there from now on. Raises `StoreError` if the store is away, `LogError` if it is another
        log's."""
        store = self._opened(place)
        await self._ask(_claim, store, place)
        self._stores[place.id] = (replace(place, used=True), store)
        self._new = place.id

    async def close(self) -> None:
        """Let go of the threads; a request that is under way may still end."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def placed(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return a new row as it is to be written: its body is in the store by then. Raises `StoreError`."""
        if self._new is None:
            return row
        _, store = self._stores[self._new]
        await self._ask(_place, store, object_name(row["sha256"]), row["body"])
        return row | {"body": b"", "store": self._new}

    async def filled(self, rows: Sequence[Row]) -> list[Row]:
        """Return rows of trees with their bodies, `None` for one that its store has lost.

        A row that was deleted after it had been read is left out. Raises `StoreError` if a store is away.
        """
        read = await asyncio.gather(*map(self._filled, rows))
        lost = [row["tree_id"] for row in read if row["body"] is None]
        kept = await self._present(lost) if lost else set()
        return [row for row in read if row["body"] is not None or row["tree_id"] in kept]

    async def drop(self, objects: Sequence[ObjectBody]) -> None:
        """Remove the bodies of deleted rows. What cannot be removed now is left to the sweep."""
        for id_ in {store for store, _ in objects}:
            names = [object_name(sha256) for store, sha256 in objects if store == id_]
            try:
                _, store = await self._store(id_)
                await self._run(store.remove, names)
            except LogError as error:
                logger.warning("%d bodies of deleted trees stay for now: %s", len(names), error)

    async def probe(self) -> None:
        """Raise `StoreError` unless new bodies can be placed."""
        if self._new is not None:
            place, store = self._stores[self._new]
            await self._ask(_claim, store, place)

    async def sweep(self, before: float) -> int:
        """Remove the objects that no row names, and that were made before `before` (Unix seconds); return their number.

        Raises `StoreError` if a store is away.
        """
        async with self._reads.connect() as conn:
            ids = (await conn.execute(select(object_stores.c.id))).scalars().all()
        return sum([await self._sweep(id_, before) for id_ in ids])

    def folder(self) -> Path | None:
        """Return the folder that new bodies go to; `None` if they go to no folder of this machine."""
        return None if self._new is None else folder_of(self._stores[self._new][0].url)

    async def _filled(self, row: Row) -> Row:
        if row["store"] is None:
            return row
        place, store = await self._store(row["store"])
        return {**row, "body": await self._ask(_read, store, place, object_name(row["sha256"]))}

    async def _present(self, tree_ids: Sequence[str]) -> set[str]:
        query = select(trees.c.tree_id).where(trees.c.tree_id.in_(tree_ids))
        async with self._reads.connect() as conn:
            return set((await conn.execute(query)).scalars())

    async def _sweep(self, id_: int, before: float) -> int:
        place, store = await self._store(id_)
        await self._run(_check, store, place)
        removed = 0
        for shard in _SHARDS:
            names = await self._run(_older, store, shard, before)
            for start in range(0, len(names), _CHUNK):
                orphans = await self._orphans(names[start : start + _CHUNK])
                removed += await self._run(_remove_older, store, orphans, before)
        return removed

    async def _orphans(self, names: Sequence[str]) -> list[str]:
        """Return those of the names that no row needs."""
        hashes = [name.rpartition("/")[2] for name in names]
        query = select(trees.c.sha256).where(trees.c.store.is_not(None), trees.c.sha256.in_(hashes))
        async with self._reads.connect() as conn:
            named = set((await conn.execute(query)).scalars())
        return [name for name, sha256 in zip(names, hashes, strict=True) if sha256 not in named]

    async def _store(self, id_: int) -> tuple[Place, ObjectStore]:
        if id_ not in self._stores:
            async with self._reads.connect() as conn:
                query = select(object_stores).where(object_stores.c.id == id_)
                row = (await conn.execute(query)).mappings().one_or_none()
            if row is None:
                raise StoreError(f"the log does not know its object store {id_}")
            self._opened(Place(**row, used=True))
        return self._stores[id_]

    def _opened(self, place: Place) -> ObjectStore:
        try:
            store = open_store(place.url, self._options)
        except ObjectStoreError as error:
            raise StoreError(str(error)) from error
        self._stores[place.id] = (place, store)
        return store

    async def _ask(self, call: Callable[..., Result], *arguments: Any) -> Result:
        """Call in a thread, with a deadline that includes the wait for one."""
        seconds = _PATIENCE * self._options.seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._run(call, *arguments)
        except TimeoutError as error:
            raise StoreError(f"no answer of the object store in {seconds:g} s") from error

    async def _run(self, call: Callable[..., Result], *arguments: Any) -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, call, *arguments)
        except ObjectStoreError as error:
            raise StoreError(str(error)) from error


def _place(store: ObjectStore, name: str, body: bytes) -> None:
    """Have an object of a body, and a young one: a sweep may be about to remove an old one that no row names yet."""
    if not store.create(name, body):
        store.renew(name, body)


def _claim(store: ObjectStore, place: Place) -> None:
    """Prove that the store takes writes and is this log's; its mark is made at the first start."""
    if store.create(MARK, place.mark.encode()) and place.used:
        store.remove([MARK])
        raise StoreError(_away(place))
    _check(store, place)


def _check(store: ObjectStore, place: Place) -> None:
    """Raise `LogError` unless the store has the mark of this log."""
    try:
        mark = store.read(MARK)
    except ObjectMissing:
        raise StoreError(_away(place)) from None
    if mark != place.mark.encode():
        raise LogError(f"{place.url} holds the bodies of another log; give each log a prefix of its own")


def _away(place: Place) -> str:
    return f"{place.url} lacks {MARK}, so it is not the store that holds bodies of this log"


def _read(store: ObjectStore, place: Place, name: str) -> bytes | None:
    """Return an object; `None` if the store is there and has lost it."""
    try:
        return store.read(name)
    except ObjectMissing:
        _check(store, place)
        return None


def _remove_older(store: ObjectStore, names: Sequence[str], before: float) -> int:
    """Remove bodies that no row named and return their number. One that was renewed since it was listed stays: its row
    is about to come. So each is looked at again just before it goes; whoever places a body renews it first."""
    removed = 0
    for name in names:
        made = store.modified(name)
        if made is not None and made < before:
            store.remove([name])
            removed += 1
    return removed


def _older(store: ObjectStore, shard: str, before: float) -> list[str]:
    """Return the names of bodies that were made before a time."""

    def names() -> Iterator[str]:
        for page in store.find(shard):
            yield from (name for name, made in page.items() if made < before and _NAME.fullmatch(name))

    return list(names())
