"""The reader of the server's log: at least once, from a cursor that moves only when what was read is trained on.

A pull holds the consumer's lease, so two trainers cannot move one cursor: every change names the version last seen
(If-Match), and the lease keeps the other from registering in between. `holding` renews the lease while work goes on,
and stops the work if it is lost. A change whose answer was lost may or may not have been made, so the server's version
is read again before the next one. A record that is no tree, or that the log calls corrupt, is kept in a quarantine
folder, counted, and passed over. Feedback from a key that may not teach (`train_feedback`) is passed over too.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ramify.races import first_of
from ramify.search.codec import BadTree, tree_from_dict
from ramify_client import AsyncClient, Conflict, NotFound, RamifyError, ServerError, results
from ramify_client.results import Consumer, CorruptRecord, FeedbackRecord, LogRecord, TreeRecord
from ramify_trainer.errors import TrainerError
from ramify_trainer.learning.labels import Feedback

logger = logging.getLogger(__name__)
Done = TypeVar("Done")


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """A record of the log that training reads: a tree, or feedback on one."""

    seq: int
    tree_id: str
    tree: Mapping[str, Any] | None = None
    """The tree as it was logged, which `tree_from_dict` can read; None in a record of feedback."""
    feedback: Feedback | None = None


@dataclass(slots=True)
class Puller:
    """A consumer of the log with its lease. `open` it first."""

    client: AsyncClient
    name: str
    owner: str
    """Name under which the lease is held; another owner is kept off while it lasts."""
    quarantine: Path
    lease_seconds: float = 300.0
    consumer: Consumer | None = None
    """The consumer as last seen."""
    quarantined: int = field(default=0)
    """Records set aside so far."""
    last_read: int = 0
    """The last `seq` read, of whatever kind; 0 before any."""
    clock: Callable[[], float] = time.monotonic
    """Seconds."""
    _renewed: float = field(default=0.0)
    _unsure: bool = field(default=False)
    """True if a change may have been made whose answer never came."""
    _one: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One change at a time: each names the version that the one before made."""

    async def open(self) -> Consumer:
        """Register if the consumer is unknown, and take the lease. Raises `TrainerError`."""
        async with self._one:
            try:
                self.consumer = await self.client.consumers.get(self.name)
            except NotFound:
                self.consumer = None
            self._unsure = False
            return await self._put(None)

    @property
    def leased(self) -> bool:
        """True while the lease is held, as far as is known here."""
        return self.consumer is not None and self.clock() < self._renewed + self.lease_seconds

    @property
    def cursor(self) -> int:
        """The last `seq` that is done with."""
        return self._held().cursor

    @property
    def backlog(self) -> int:
        """Records beyond the cursor when the lease was last renewed."""
        return 0 if self.consumer is None else self.consumer.high_water - self.consumer.cursor

    async def oldest(self, client: AsyncClient) -> float | None:
        """Return the Unix time of the oldest record beyond the cursor; None if there is none."""
        async for record in client.trees.read(after=self.cursor, limit=1):
            if isinstance(record, CorruptRecord):
                return None
            made = record.tree.get("created_at") if isinstance(record, TreeRecord) else record.created_at
            return float(made) if isinstance(made, int | float) else None
        return None

    async def read(self, most: int | None = None) -> AsyncIterator[TrainingRecord]:
        """Yield what the log holds beyond the cursor, to its present end; of at most `most` records."""
        async for record in self.client.trees.read(after=self.cursor, limit=most):
            self.last_read = record.seq
            readable = self._readable(record)
            if readable is not None:
                yield readable

    async def tree_with_feedback(self, tree_id: str) -> list[TrainingRecord]:
        """Return a logged tree of whatever age, then the feedback on it up to the last record read, oldest first.

        Nothing if the tree is gone, corrupt or no tree."""
        try:
            logged = await self.client.trees.get(tree_id)
            tree_from_dict(logged.tree)
        except (NotFound, BadTree):
            return []
        except ServerError as error:
            if error.code != "tree_corrupt":
                raise
            logger.warning("%s is corrupt in the log; the feedback on it is passed over", tree_id)
            return []
        given = [f for f in logged.feedback if f.seq <= self.last_read and f.train]
        return [
            TrainingRecord(logged.seq, tree_id, tree=logged.tree),
            *(TrainingRecord(f.seq, tree_id, feedback=_feedback(f)) for f in given),
        ]

    async def renew(self) -> None:
        """Keep the lease. Raises `TrainerError`."""
        async with self._one:
            await self._put(None)

    async def advance(self, cursor: int) -> None:
        """Move the cursor: everything up to it is done with. Raises `TrainerError`."""
        async with self._one:
            await self._put(cursor)

    async def holding(self, work: Coroutine[Any, Any, Done]) -> Done:
        """Do `work`, and renew the lease every third of its length meanwhile.

        If the lease is lost, the work is cancelled and `TrainerError` raised; a server that is away is asked again a
        third later."""
        working, renewing = asyncio.create_task(work), asyncio.create_task(self._renewing())
        async with first_of(working, renewing):
            if not working.done():
                renewing.result()
            return await working

    async def _renewing(self) -> None:
        while True:
            await asyncio.sleep(self.lease_seconds / 3)
            try:
                await self.renew()
            except RamifyError as error:
                logger.warning("the lease on %s could not be renewed: %s", self.name, error)

    async def _put(self, cursor: int | None) -> Consumer:
        try:
            # After a change whose answer was lost, the version to name is the server's, not the last one seen.
            if self._unsure:
                await self._look_again()
            asked = self.clock()
            self.consumer = await self.client.consumers.put(
                self.name,
                version=self.consumer.version if self.consumer else None,
                cursor=cursor,
                owner=self.owner,
                lease_seconds=self.lease_seconds,
            )
        except Conflict as error:
            raise TrainerError(self._taken(error.code or str(error))) from error
        except (RamifyError, asyncio.CancelledError):
            self._unsure = True
            raise
        self._renewed = asked
        return self.consumer

    async def _look_again(self) -> None:
        """Find out what became of a change whose answer was lost. Raises `TrainerError` if somebody else made one."""
        before = self.consumer
        try:
            found = await self.client.consumers.get(self.name)
        except NotFound:
            if before is not None:
                raise
            found = None
        known = before.version if before else 0
        if found is not None and (found.owner not in (None, self.owner) or found.version > known + 1):
            raise TrainerError(self._taken(f"{found.owner or 'somebody'} has changed it"))
        self.consumer, self._unsure = found, False

    def _taken(self, why: str) -> str:
        return (
            f"the consumer {self.name!r} is another trainer's ({why}); stop that one, wait until its lease ends, or "
            "give this one a name of its own"
        )

    def _held(self) -> Consumer:
        if self.consumer is None:
            raise RuntimeError("open the puller first")
        return self.consumer

    def _readable(self, record: LogRecord) -> TrainingRecord | None:
        """Return what training reads of a record: None if it is set aside, or feedback that may not be learned from."""
        try:
            if isinstance(record, CorruptRecord):
                raise BadTree(f"corrupt in the log: {record.reason}")
            if isinstance(record, FeedbackRecord):
                feedback = _feedback(record)
                return TrainingRecord(record.seq, record.tree_id, feedback=feedback) if record.train else None
            tree_from_dict(record.tree)
            return TrainingRecord(record.seq, record.tree_id, tree=record.tree)
        except BadTree as error:
            self._set_aside(record, error)
            return None

    def _set_aside(self, record: LogRecord, error: BadTree) -> None:
        logger.warning("record %d (%s) is set aside: %s", record.seq, record.tree_id, error)
        self.quarantined += 1
        self.quarantine.mkdir(parents=True, exist_ok=True)
        kept = {"error": str(error), "record": record.model_dump()}
        path = self.quarantine / f"{record.seq:012d}.json"
        path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def _feedback(given: results.Feedback | FeedbackRecord) -> Feedback:
    """Raises `BadTree` if it is none that can be learned from."""
    if not 0 <= given.outcome <= 1:
        raise BadTree(f"feedback of {given.outcome}, which is outside [0, 1]")
    if given.source not in ("human", "verifier"):
        raise BadTree(f"feedback of the source {given.source!r}")
    return Feedback(
        given.node, given.answer, given.outcome, "verifier" if given.source == "verifier" else "human"
    )
