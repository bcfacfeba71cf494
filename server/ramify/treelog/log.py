"""`TreeLog`: the log that the server writes and consumers read."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from ramify.objects import ObjectOptions
from ramify.search.records import OutcomeSource
from ramify.search.tree import Tree
from ramify.treelog import bodies, checkpoints, consumers, idempotency, releases, schema, trees, upkeep
from ramify.treelog.bodies import Bodies
from ramify.treelog.errors import LogError, StoreError
from ramify.treelog.records import (
    Activation,
    ActivationKind,
    Claim,
    Consumer,
    Entry,
    ExpiryCounts,
    Feedback,
    Filters,
    KeptAnswer,
    LogSize,
    Record,
    Release,
    Summary,
    VerifyReport,
)
from ramify.treelog.rows import decompress, entry_of, feedback_problem, record_of, row_of
from ramify.treelog.schema import plain
from ramify.treelog.store import FileLock, Store, parse_url, reader_engine, translated, writer_engine
from ramify.treelog.trees import EncodedTree
from ramify.treelog.upkeep import Progress
from ramify.treelog.writer import Item, Result, Write, Writer, one_by_one, touch

logger = logging.getLogger(__name__)
FREEING, FREE_AGAIN = 600.0, 1.0
"""Seconds for which an abandoned claim is tried to be freed: few last longer. Seconds between two tries."""
_ANY = Filters()
_IN_ROWS = ObjectOptions()


class TreeLog:
    """An open log. Make one with `open`; it belongs to the event loop that opened it. Raises `LogError` only."""

    def __init__(
        self,
        store: Store,
        objects: ObjectOptions,
        clock: Callable[[], float],
        boot_id: str,
        steady: Callable[[], float],
    ) -> None:
        """Use `open` instead."""
        self.store = store
        self.boot_id = boot_id
        self.ended: Callable[[], Collection[str]] = tuple
        """Returns the other processes, by `boot_id`, that are known to have ended: what they claimed is free, and what
        they ran is interrupted."""
        self._clock = clock
        started, first = clock(), steady()
        self._steady = lambda: started + steady() - first
        self._lock: FileLock | None = None
        self._writes: AsyncEngine | None = None
        self._writer: Writer | None = None
        self._reads: AsyncEngine = reader_engine(store)
        self._objects = objects
        self._bodies = Bodies(objects, self._reads)
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="ramify-treelog-encode")
        self._closed = False
        self._freeing: set[asyncio.Task[None]] = set()
        """Claims that are being abandoned."""
        self._refused: set[str] = set()
        """Trees whose checkpoints the log has refused."""

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        read_only: bool = False,
        objects: ObjectOptions = _IN_ROWS,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
        boot_id: str | None = None,
        max_pending: int = 2048,
        max_batch: int = 256,
        deadline: float = 30.0,
    ) -> TreeLog:
        """Open, creating or migrating the store unless `read_only`.

        objects: where the bodies of new trees go, and how object stores are asked, also for those that are there.
        clock: Unix seconds. steady: seconds that no change of the wall clock moves, for leases. boot_id: names this
        process in idempotency claims; random if not given.
        max_pending: writes that may wait; more wait for room. max_batch: writes in one transaction.
        deadline: seconds that one write may take, waiting included.
        Raises `LogError` for a URL of no store, a SQLite file that another process writes, a schema that is not this
        build's, or an object store with another log's bodies, and `StoreError`.
        """
        log = cls(parse_url(url), objects, clock, boot_id or uuid.uuid4().hex[:12], steady)
        try:
            with translated(log.store):
                if read_only:
                    await log._open_read_only()
                else:
                    await log._open(max_pending=max_pending, max_batch=max_batch, deadline=deadline)
        except BaseException:
            await log.close()
            raise
        return log

    async def _open_read_only(self) -> None:
        self._refuse_folder()
        if self.store.path and not self.store.path.exists():
            raise LogError(f"there is no log at {self.store}")
        await schema.check(self._reads)

    async def _open(self, *, max_pending: int, max_batch: int, deadline: float) -> None:
        self._refuse_folder()
        if self.store.path:
            self.store.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.store.path)
        self._writes = writer_engine(self.store)
        await schema.upgrade(self._writes)
        self._writer = Writer(
            self._writes,
            self.store,
            self._clock,
            max_pending=max_pending,
            max_batch=max_batch,
            deadline=deadline,
        )
        if self.store.kind == "sqlite":  # its one writer is this process: all other claims are of dead ones
            await self._write(lambda tx: idempotency.release_other_boots(tx, self.boot_id))
        if (trees_url := self._objects.trees) is not None:
            await self._bodies.begin(await self._write(lambda tx: bodies.register(tx, trees_url)))

    def _refuse_folder(self) -> None:
        if self.store.path and self.store.path.is_dir():
            raise StoreError(
                f"{self.store} is a folder; the log is a file, as in sqlite:///{self.store}/ramify.db"
            )

    async def close(self) -> None:
        """Commit the writes that wait, then let go of the store. Closing twice is harmless."""
        self._closed = True
        for task in self._freeing:
            task.cancel()
        if self._writer:
            await self._writer.close()
        for engine in (self._writes, self._reads):
            if engine:
                await engine.dispose()
        self._encoder.shutdown()
        await self._bodies.close()
        if self._lock:
            self._lock.release()
            self._lock = None

    async def __aenter__(self) -> TreeLog:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def commits(self) -> int:
        """Write transactions committed since the log was opened."""
        return self._writer.commits if self._writer else 0

    @property
    def pending(self) -> int:
        """Writes that wait for their commit."""
        return self._writer.pending if self._writer else 0

    # Trees and feedback

    async def append(self, tree: Tree, key_id: str = "", *, answer: KeptAnswer | None = None) -> int:
        """Log a finished tree; return its `seq` once that is durable.

        The tree must not change meanwhile. `answer` is kept for its idempotency key in the same transaction. The same
        tree again returns the same `seq`. A caller cancelled while the tree is being encoded or its body placed has
        logged nothing; cancelled later, the tree is still written. Raises `LogError` for a tree that cannot be logged
        or another one under a logged id, and `StoreError`.
        """

        async def prepared() -> EncodedTree:
            return await self._placed(await self._encode(tree, key_id, answer))

        return await self._append(prepared)

    async def encode(self, tree: Tree, key_id: str = "", answer: KeptAnswer | None = None) -> EncodedTree:
        """Return a finished tree as it will be stored, for callers that may have to append it more than once."""
        self._writing()
        return await self._encode(tree, key_id, answer)

    async def _encode(self, tree: Tree, key_id: str, answer: KeptAnswer | None) -> EncodedTree:
        loop = asyncio.get_running_loop()
        return EncodedTree(await loop.run_in_executor(self._encoder, row_of, tree, key_id), answer)

    async def append_encoded(self, encoded: EncodedTree) -> int:
        """Log a tree that is encoded already; see `append`."""
        return await self._append(lambda: self._placed(encoded))

    async def _append(self, prepare: Callable[[], Awaitable[EncodedTree]]) -> int:
        seq, replaced = await self._writing().submit(trees.append, prepare, locks_last=True)
        await self._bodies.drop(replaced)
        return seq

    async def _placed(self, encoded: EncodedTree) -> EncodedTree:
        return replace(encoded, row=await self._bodies.placed(encoded.row))

    async def get(self, tree_id: str, *, key_id: str | None = None) -> Entry | None:
        """Return a tree, or None if there is none, or none of this API key's.

        key_id: the only API key whose tree is returned; None: anybody's. Raise `CorruptTree` if the stored body is not
        what was written.
        """
        with self._reading():
            row = await trees.fetch(self._reads, self._bodies, tree_id)
        if row is None or key_id not in (None, row["key_id"]):
            return None
        return await asyncio.to_thread(entry_of, row)

    async def list(
        self, *, before: int | None = None, limit: int = 50, filters: Filters = _ANY
    ) -> Sequence[Summary]:
        """Return trees, newest first; the next page is `before` the last one's `seq`."""
        with self._reading():
            return await trees.newest(self._reads, before, limit, filters)

    async def high_water(self) -> int:
        """Return the last committed `seq`; 0 in an empty log."""
        with self._reading():
            return await trees.high_water(self._reads)

    async def read(
        self, after: int = 0, *, up_to: int | None = None, limit: int | None = None
    ) -> AsyncIterator[Record]:
        """Yield trees and feedback with after < seq ≤ up_to in the order of `seq`, at most `limit` of them.

        up_to: the high-water mark at the start, if not given. No transaction is held between pages.
        A row that is not what was written comes as a `CorruptRow`, and reading goes on.
        """
        last = await self.high_water() if up_to is None else min(up_to, await self.high_water())
        left = limit
        if left == 0:
            return
        with self._reading():
            async for page in trees.pages(self._reads, self._bodies, after, last):
                for kind, row in page:
                    yield await asyncio.to_thread(record_of, kind, row)
                    left = None if left is None else left - 1
                    if left == 0:
                        return

    async def delete(self, tree_id: str) -> bool:
        """Remove a tree, its feedback and the kept answer of its search; False if there is none."""
        objects = await self._write(lambda tx: trees.remove(tx, tree_id))
        await self._bodies.drop(objects or ())
        return objects is not None

    async def add_feedback(
        self,
        tree_id: str,
        outcome: float,
        *,
        source: OutcomeSource = "human",
        key_id: str = "",
        node: int | None = None,
        answer: str | None = None,
        comment: str = "",
        train: bool = True,
    ) -> Feedback:
        """Add feedback, an outcome in [0, 1], on the answer that ends at `node`, or whose text is `answer`.

        train: whether the trainer may learn from it. Raises `LogError` for an unknown tree or senseless feedback.
        """
        given = Feedback(
            seq=0,  # the transaction gives it its place and time
            outcome_id=f"out_{uuid.uuid4().hex}",
            tree_id=tree_id,
            node=node,
            answer=None if answer is None else plain(answer),
            outcome=float(outcome),
            source=source,
            key_id=plain(key_id),
            comment=plain(comment),
            train=train,
            created_at=0.0,
        )
        if problem := feedback_problem(given):
            raise LogError(f"no feedback: {problem}")
        return await self._write(lambda tx: trees.add_feedback(tx, given))

    async def feedback(self, tree_id: str) -> Sequence[Feedback]:
        """Return the feedback on a tree, oldest first; what is corrupt is left out."""
        with self._reading():
            return await trees.feedback_on(self._reads, tree_id)

    # Checkpoints

    async def checkpoint(
        self, tree: Tree, key_id: str = "", *, lease_seconds: float
    ) -> Callable[[], Awaitable[bool]]:
        """Encode the snapshot of a running search, which must not change meanwhile, in a thread. Return what commits it
        in the place of its last checkpoint, and returns False if the finished tree is logged already.

        lease_seconds: how long it stands if this process does not renew it. Raises `LogError`."""
        self._writing()
        loop = asyncio.get_running_loop()
        row = await loop.run_in_executor(self._encoder, checkpoints.checkpoint_row, tree, key_id)
        return lambda: self._write(lambda tx: checkpoints.put(tx, row, self.boot_id, lease_seconds))

    async def renew_checkpoints(self) -> int:
        """Renew the lease on every checkpoint of this process; return their number."""
        return await self._write(lambda tx: checkpoints.renew(tx, self.boot_id))

    async def log_interrupted(self) -> Sequence[str]:
        """Log every search whose process has ended, as far as its last checkpoint. Return the ids of their trees.

        A checkpoint that the log refuses stays, is told in the server's log and left alone by this process from then
        on. Raises `LogError`."""
        logged: list[str] = []
        after = ""
        while (row := await self._next_lapsed(after)) is not None:
            after = row["tree_id"]
            if after in self._refused:
                continue
            try:
                if await self._log_interrupted(row):
                    logged.append(after)
            except StoreError:
                raise
            except LogError as error:
                self._refused.add(after)
                logger.error("the checkpoint of %s is refused, and stays: %s", after, error)
        return logged

    async def _next_lapsed(self, after: str) -> checkpoints.Row | None:
        return await self._write(lambda tx: checkpoints.lapsed(tx, self.boot_id, self.ended(), after))

    async def _log_interrupted(self, row: checkpoints.Row) -> bool:
        loop = asyncio.get_running_loop()
        encoded: EncodedTree | None = None
        try:
            encoded = await loop.run_in_executor(self._encoder, checkpoints.interrupted, row)
        except LogError as error:
            logger.error("%s, and is dropped", error)
        if encoded is not None:
            encoded = await self._placed(encoded)
        done = await self._write(
            lambda tx: checkpoints.log_interrupted(tx, row, encoded, self.boot_id, self.ended())
        )
        return done and encoded is not None

    async def checkpoint_owner(self, tree_id: str) -> tuple[str, str] | None:
        """Return the API key of a search that is not logged and has a checkpoint, and the `boot_id` of the process that
        keeps it; `None` if it has none."""
        with self._reading():
            return await checkpoints.owner(self._reads, tree_id)

    async def continuation(self, tree_id: str) -> str | None:
        """Return the id of the tree that goes on from this one, logged or with a checkpoint; `None` if there is
        none."""
        with self._reading():
            return await checkpoints.continuation(self._reads, tree_id)

    # Consumers

    async def get_consumer(self, name: str) -> Consumer | None:
        with self._reading():
            return await consumers.get(self._reads, name, self._steady)

    async def consumers(self) -> Sequence[Consumer]:
        with self._reading():
            return await consumers.every(self._reads, self._steady)

    async def put_consumer(
        self,
        name: str,
        *,
        version: int | None,
        cursor: int | None = None,
        owner: str | None = None,
        lease_seconds: float | None = None,
        rewind: bool = False,
        key_id: str = "",
    ) -> Consumer:
        """Register a consumer (`version` None) or change it (the `version` last seen, as in If-Match).

        cursor: None leaves it (0 at first). owner with lease_seconds takes or renews the lease; without
        lease_seconds the lease ends. rewind allows a lower cursor. key_id: the API key that asks; a lease is held
        against every other key, whatever owner it names.
        Raises `ConsumerConflict` if the version is not the present one or another owner or key holds the lease, and
        `BadCursor` for one that is backwards or beyond the log.
        """
        return await self._write(
            lambda tx: consumers.put(
                tx,
                name,
                version=version,
                cursor=cursor,
                owner=owner,
                lease_seconds=lease_seconds,
                rewind=rewind,
                key_id=key_id,
                steady=self._steady,
            )
        )

    async def delete_consumer(self, name: str) -> bool:
        """Forget a consumer, so that expiry waits for it no longer. Raises `ConsumerConflict` while it is leased."""
        return await self._write(lambda tx: consumers.remove(tx, name, self._steady))

    # Expiry

    async def expire(
        self,
        *,
        older_than: float | None = None,
        keep_newest: int | None = None,
        keep_bytes: int | None = None,
    ) -> ExpiryCounts:
        """Delete trees that every registered consumer has read.

        older_than: those of at least this many seconds go. keep_bytes: the oldest go until the rest takes no more,
        compressed. keep_newest: so many trees stay in any case; alone, all others go.
        Also drops idempotency keys that have run out. Raises `LogError` if nothing is given.
        """
        conditions = await self._expirable(older_than, keep_newest, keep_bytes)
        total = ExpiryCounts(0, 0, 0)
        while True:
            done, objects = await self._write(lambda tx: upkeep.expire(tx, conditions))
            await self._bodies.drop(objects)
            total = ExpiryCounts(
                total.trees + done.trees, total.feedback + done.feedback, total.claims + done.claims
            )
            if done.trees < upkeep.CHUNK:
                return total

    async def expirable(
        self,
        *,
        older_than: float | None = None,
        keep_newest: int | None = None,
        keep_bytes: int | None = None,
    ) -> LogSize:
        """Count and measure what `expire` would delete now."""
        conditions = await self._expirable(older_than, keep_newest, keep_bytes)
        with self._reading():
            return await upkeep.size(self._reads, conditions)

    async def _expirable(
        self, older_than: float | None, keep_newest: int | None, keep_bytes: int | None
    ) -> upkeep.Conditions:
        if older_than is None and keep_newest is None and keep_bytes is None:
            raise LogError("say what to keep: older_than, keep_newest or keep_bytes")
        with self._reading():
            last = None if keep_bytes is None else await upkeep.last_beyond(self._reads, keep_bytes)
        made_before = None if older_than is None else self._clock() - older_than
        return upkeep.expirable(made_before, keep_newest, last)

    async def size(self) -> LogSize:
        """Count and measure all trees; looks at every row."""
        with self._reading():
            return await upkeep.size(self._reads)

    async def sweep(self) -> int:
        """Remove objects that no tree names, since a writer or a deletion was cut short; return their number. Those
        younger than `grace_seconds` stay. Raises `StoreError`, and `LogError` for a store of another log."""
        self._writing()
        with self._reading():
            return await self._bodies.sweep(self._clock() - self._objects.grace_seconds)

    # Idempotency

    async def claim(
        self, key_id: str, key: str, body_hash: str, search_id: str, *, seconds: float = 3600.0
    ) -> Claim:
        """Claim an idempotency key for a search that is about to start.

        seconds: after which an unfinished claim counts as dead; more than the longest search takes.
        """
        boot = self.boot_id
        claim = await self._write(
            lambda tx: idempotency.claim(
                tx, key_id, key, body_hash, search_id, boot_id=boot, seconds=seconds, ended=self.ended()
            )
        )
        if claim.state != "answered":
            return claim
        # After the commit: no other write waits for it.
        loop = asyncio.get_running_loop()
        return replace(claim, body=await loop.run_in_executor(self._encoder, decompress, claim.body))

    async def finish(self, answer: KeptAnswer) -> bool:
        """Keep the answer of a claim without a tree. False if the claim is gone."""
        return await self._write(lambda tx: idempotency.finish(tx, answer))

    async def abandon(self, key_id: str, key: str, search_id: str) -> bool:
        """Free a claimed key, its search having failed before any answer."""
        return await self._write(lambda tx: idempotency.abandon(tx, key_id, key, search_id))

    def free(self, key_id: str, key: str, search_id: str) -> asyncio.Task[None]:
        """Abandon a claim, in a task that tries again while the store is away, for `FREEING` seconds at most."""
        task = asyncio.create_task(self._free(key_id, key, search_id), name=f"free-{search_id}")
        self._freeing.add(task)
        task.add_done_callback(self._freeing.discard)
        return task

    async def _free(self, key_id: str, key: str, search_id: str) -> None:
        try:
            async with asyncio.timeout(FREEING):
                while True:
                    with suppress(StoreError):
                        await self.abandon(key_id, key, search_id)
                        return
                    await asyncio.sleep(FREE_AGAIN)
        except (LogError, TimeoutError) as error:
            logger.warning("the claim of %s runs out by itself: %s", search_id, error or "no answer in time")

    # Releases

    async def record_release(
        self, release_id: str, state: str, figures: Mapping[str, Any] | None = None
    ) -> None:
        """Record a release's state and figures, replacing what was recorded."""
        text = releases.figures_json(figures or {})
        await self._write(lambda tx: releases.record(tx, release_id, state, text))

    async def releases(self) -> Sequence[Release]:
        """Return all recorded releases by id."""
        with self._reading():
            return await releases.every(self._reads)

    async def active_release(self) -> Release | None:
        return next((release for release in await self.releases() if release.active), None)

    async def activate(
        self, release_id: str, note: str = "", kind: ActivationKind = "activate"
    ) -> Activation:
        """Make a recorded release the active one. Raises `LogError` for an unknown one."""
        return await self._write(lambda tx: releases.activate(tx, release_id, note, kind))

    async def commit_activation(self, release_id: str, note: str, kind: ActivationKind) -> Activation:
        """Make a release that is loaded the active one. Raises `LogError` if the gate has rejected it by now."""
        return await self._write(lambda tx: releases.commit(tx, release_id, note, kind))

    async def activation_failed(self, release_id: str, error: str) -> None:
        """Record why a release was not activated; one that the gate has rejected stays so."""
        await self._write(lambda tx: releases.ended(tx, release_id, error))

    async def activations(self) -> Sequence[Activation]:
        """Return all activations, newest first."""
        with self._reading():
            return await releases.activations_of(self._reads)

    # Health

    async def probe(self, *, write: bool = True) -> None:
        """Raise `LogError` if the log takes no writes.

        write: commit one, which changes nothing; False if something else has just proved that the database takes them,
        so that only the store of bodies is asked."""
        await self._bodies.probe()
        if write:
            await self._write(touch)

    def free_bytes(self) -> int | None:
        """Return the free space on the disk that holds the log, or its bodies; `None` if neither is on one of this
        machine's."""
        folders = (self.store.path.parent if self.store.path else None, self._bodies.folder())
        return min((shutil.disk_usage(folder).free for folder in folders if folder), default=None)

    async def verify(self, progress: Progress | None = None) -> VerifyReport:
        """Derive every hash again, read every tree, compare every column with its body."""
        with self._reading():
            return await upkeep.verify(self._reads, self._bodies, progress)

    def _writing(self) -> Writer:
        if self._closed:
            raise LogError("the log is closed")
        if self._writer is None:
            raise LogError("this log was opened read-only")
        return self._writer

    def _reading(self) -> AbstractContextManager[None]:
        if self._closed:
            raise LogError("the log is closed")
        return translated(self.store)

    async def _write(self, write: Write[Result]) -> Result:
        return await self._writing().submit(one_by_one, lambda: _ready(write))


async def _ready(item: Item) -> Item:
    return item
