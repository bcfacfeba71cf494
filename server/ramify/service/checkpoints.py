"""Checkpoints of running searches, and what is left of the searches of servers that have died.

Every `checkpoint_seconds`, after a landing, a search's tree is committed beside the log with all that it takes to go
on. It is written down in a thread while nothing lands, and committed while the search goes on. A search that the
checkpoint fails for goes on all the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from ramify.search.run import Search
from ramify.search.state import BadState
from ramify.service.search_view import search_id
from ramify.treelog import LogError, TreeLog

logger = logging.getLogger(__name__)
LEASE = 4.0
"""Intervals after which a checkpoint that was not renewed is of a dead server."""
LOOK_EVERY = 60.0
"""Seconds between two looks for searches of dead servers, if this one makes no checkpoints."""


@dataclass(eq=False, slots=True)
class Checkpoints:
    """One server's. All calls on one event loop."""

    log: TreeLog
    seconds: float
    """Seconds between two checkpoints of a search; 0: none are made."""
    clock: Callable[[], float]
    """Seconds, monotonic."""

    def keeper(self, key_id: str) -> Callable[[Search], Awaitable[None]] | None:
        """Return what keeps one search of an API key, for `Search`; `None` if checkpoints are off."""
        return Keeper(self, key_id, self.clock() + self.seconds) if self.seconds else None

    async def run(self) -> None:
        """Renew this server's checkpoints, and log the searches of dead ones, until cancelled."""
        while True:
            await asyncio.sleep(self.seconds or LOOK_EVERY)
            await self.look()

    async def look(self) -> None:
        """Do so once. A log that fails is tried again the next time."""
        try:
            await self.log.renew_checkpoints()
            for tree_id in await self.log.log_interrupted():
                logger.warning(
                    "search %s was interrupted by the end of its server; it is logged as far as its last checkpoint",
                    search_id(tree_id),
                )
        except LogError as error:
            logger.warning("checkpoints could not be looked after: %s", error)
        except Exception:  # a mistake of ours must not end the upkeep for good
            logger.exception("checkpoints could not be looked after")


@dataclass(eq=False, slots=True)
class Keeper:
    """The checkpoints of one search."""

    of: Checkpoints
    key_id: str
    due: float
    """Time of the next one, on the clock."""
    _writing: asyncio.Task[None] | None = field(default=None)

    async def __call__(self, search: Search) -> None:
        """Make a checkpoint if it is time for one, and the last one is written."""
        of = self.of
        if of.clock() < self.due or (self._writing is not None and not self._writing.done()):
            return
        self.due = of.clock() + of.seconds
        try:
            commit = await of.log.checkpoint(search.snapshot(), self.key_id, lease_seconds=LEASE * of.seconds)
        except (BadState, LogError) as error:
            self._failed(search, error)
        else:
            self._writing = asyncio.create_task(self._write(search, commit), name=f"keep-{search.tree.id}")

    async def _write(self, search: Search, commit: Callable[[], Awaitable[bool]]) -> None:
        try:
            await commit()
        except LogError as error:
            self._failed(search, error)

    def _failed(self, search: Search, error: Exception) -> None:
        logger.warning("search %s has no checkpoint: %s", search_id(search.tree.id), error)
