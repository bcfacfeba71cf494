"""The way of finished searches into the log, and whether the log takes any.

A finished tree that the log cannot take (disk full, database away) is kept here, compressed, and tried again until it
is written: once, since the log knows a tree by its id. Its caller is answered when it is in the log, or told after
`wait_seconds` that it is not there yet. While a tree waits, while the last write failed, and while the disk has less
than its floor, `problem` says so: readiness follows it, and new searches are refused before they cost anything.

The spool is memory (2026-11-28). A disk that is full has no room for it, and nothing in it has been acknowledged: a
process that is killed loses only what nobody was promised.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from ramify.search.tree import Tree
from ramify.service.errors import SearchFailed, ServiceError
from ramify.service.search_view import search_id
from ramify.settings import SpoolSettings
from ramify.treelog import (
    EncodedTree,
    KeptAnswer,
    LogError,
    StoreError,
    TreeLog,
)

logger = logging.getLogger(__name__)
FIRST_DELAY, LONGEST_DELAY = 0.1, 2.0
"""Seconds before a tree is tried again; doubled each time."""
FRESH = 1.0
"""Seconds for which a committed write proves that the log takes writes, and a look at its disk that it has room."""
RETRY_AFTER = 5
NOT_LOGGED = "the search {} could not be logged, so it is not answered"


@dataclass(eq=False, slots=True)
class Spool:
    """The way into the log for finished searches. All calls on one event loop."""

    log: TreeLog
    settings: SpoolSettings
    clock: Callable[[], float]
    """Seconds, monotonic."""
    on_loss: Callable[[], object]
    """Called once for each tree that will never be in the log."""
    proven: Callable[[], bool] = lambda: False
    """Tells whether something else of this server has just committed to the log's database, as a replica's looks at its
    fleet do: a probe then need not take the lock that all servers on the log share."""
    bytes: int = 0
    """Size of the trees that wait, compressed."""
    _waiting: dict[str, EncodedTree] = field(default_factory=dict)
    """Trees whose first try failed, by id."""
    _writing: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    """One task a tree, until it is written or given up."""
    _owners: dict[str, str] = field(default_factory=dict)
    """Name of the API key of each of these trees."""
    _wrote: float | None = None
    """Time of the last committed write."""
    _looked: float | None = None
    """Time of the last look at the disk."""
    _free: int | None = None
    """Bytes that the log's disk had free at that time; `None`: it is not a disk of this machine."""
    _failed: bool = False
    """True if the last write failed."""
    _probe: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Number of trees that wait for the log."""
        return len(self._waiting)

    async def append(self, tree: Tree, key_id: str, answer: KeptAnswer | None = None) -> None:
        """Return once the tree is in the log.

        Raises `log_unavailable` if it is not there after `wait_seconds`: the spool then goes on trying. Raises
        `SearchFailed` if it is lost: as `search_failed` if no log could take the tree, as `log_unavailable` if the
        log is full or away and the spool has no room, or the server stops.
        """
        try:
            encoded = await self.log.encode(tree, key_id, answer)
        except LogError as error:
            raise self._lost(tree.id, error) from error
        writing = asyncio.create_task(self._write(tree.id, encoded), name=f"spool-{tree.id}")
        self._writing[tree.id], self._owners[tree.id] = writing, key_id
        writing.add_done_callback(lambda task: self._settled(tree.id, task))
        done, _ = await asyncio.wait((writing,), timeout=self.settings.wait_seconds)
        if not done:
            raise self.unlogged(tree.id)
        if writing.cancelled():
            raise _outage(tree.id)
        writing.result()

    def owner(self, tree_id: str) -> str | None:
        """Return the API key of a tree that has ended and is not yet in the log; `None` for any other tree."""
        return self._owners.get(tree_id)

    @staticmethod
    def unlogged(tree_id: str) -> ServiceError:
        """Make the answer for a search that has an `owner`."""
        return ServiceError(
            "log_unavailable",
            f"the search {search_id(tree_id)} has ended and waits for the log, which takes no writes; "
            "ask for it again later",
            retry_after=RETRY_AFTER,
        )

    async def problem(self) -> str | None:
        """Return why the log takes no more searches; `None` if it does. Takes `deadline_seconds` at most."""
        if known := self._known_problem():
            self._look()
            return known
        if not self._fresh(self._looked):
            await asyncio.wait((self._look(),))
        return self._known_problem()

    def _fresh(self, at: float | None) -> bool:
        return at is not None and self.clock() - at <= FRESH

    async def check(self) -> None:
        """Raise `ServiceError` unless a search that starts now could be logged."""
        if problem := await self.problem():
            raise ServiceError("log_unavailable", f"searches are refused: {problem}", retry_after=RETRY_AFTER)

    @property
    def writing(self) -> set[asyncio.Task[None]]:
        """One task for each tree on its way."""
        return set(self._writing.values())

    def give_up(self) -> None:
        """Lose the trees that are still on their way: the server stops."""
        for tree_id, task in self._writing.items():
            if task.cancel():
                self._lost(tree_id, "the server stopped before the log took it")

    def _known_problem(self) -> str | None:
        free = self._free
        if free is not None and free < self.settings.free_bytes:
            return f"the log's disk has {free >> 20} MiB free, and {self.settings.free_bytes >> 20} MiB must stay free"
        if self._waiting:
            return f"the log takes no writes; {len(self._waiting)} finished searches wait for it"
        return "the log takes no writes" if self._failed else None

    def _look(self) -> asyncio.Task[None]:
        """The look that is under way, or a new one."""
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(self._ask(), name="log-probe")
        return self._probe

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(self.settings.deadline_seconds):
                # In a thread: a disk that is away may answer late, or raise because the folder has vanished.
                self._free = await asyncio.to_thread(self.log.free_bytes)
                self._looked = self.clock()
                if self._failed or not self._fresh(self._wrote):
                    await self.log.probe(write=self._failed or not self.proven())
                    self._heard(None)
        except (LogError, OSError) as error:  # among them TimeoutError
            self._heard(error)

    def _heard(self, error: Exception | None) -> None:
        """Note how a write ended."""
        if error is None:
            self._wrote = self.clock()
        elif not self._failed:
            logger.error("the log takes no writes: %s", error or "no answer in time")
        self._failed = error is not None

    async def _write(self, tree_id: str, encoded: EncodedTree) -> None:
        delay = FIRST_DELAY
        while True:
            try:
                await self.log.append_encoded(encoded)
            except StoreError as error:  # not the tree's fault: trying again later may succeed
                self._heard(error)
                self._keep(tree_id, encoded, error)
            except LogError as error:
                raise self._lost(tree_id, error) from error
            else:
                self._heard(None)
                return
            await asyncio.sleep(delay)
            delay = min(2 * delay, LONGEST_DELAY)

    def _keep(self, tree_id: str, encoded: EncodedTree, error: Exception) -> None:
        if tree_id in self._waiting:
            return
        full = len(self._waiting) >= self.settings.searches
        if full or self.bytes + encoded.size > self.settings.bytes:
            self._lost(tree_id, f"the spool is full: {error}")
            raise _outage(tree_id) from error
        self._waiting[tree_id] = encoded
        self.bytes += encoded.size

    def _settled(self, tree_id: str, task: asyncio.Task[None]) -> None:
        del self._writing[tree_id], self._owners[tree_id]
        if encoded := self._waiting.pop(tree_id, None):
            self.bytes -= encoded.size
            if not task.cancelled() and task.exception() is None:
                logger.info("search %s is in the log at last", search_id(tree_id))
        if not task.cancelled():
            task.exception()  # seen, even if its caller is gone

    def _lost(self, tree_id: str, why: object) -> SearchFailed:
        """Note that a tree is lost; returns the answer if the fault is the tree's."""
        logger.error("search %s is lost: %s", search_id(tree_id), why)
        self.on_loss()
        return SearchFailed(NOT_LOGGED.format(search_id(tree_id)))


def _outage(tree_id: str) -> SearchFailed:
    """Make the answer for a search that is lost because the log is full or away."""
    return SearchFailed(NOT_LOGGED.format(search_id(tree_id)), "log_unavailable", retry_after=RETRY_AFTER)
