"""Keep the log within the limits of its settings while the server runs, and look at its size for the metrics."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from ramify.settings import RetentionSettings
from ramify.treelog import LogError, TreeLog
from ramify.treelog.records import LogSize

logger = logging.getLogger(__name__)
DAY = 86_400.0
"""Seconds."""


@dataclass(eq=False, slots=True)
class Retention:
    """Expires old trees every `every_seconds`; never one that a registered consumer has still to read."""

    log: TreeLog
    settings: RetentionSettings
    sweep_seconds: float
    """Time between two sweeps of the log's object stores."""
    expired: Callable[[int], None]
    """Hears how many trees were deleted."""
    now: Callable[[], float]
    """Unix seconds."""
    figures: LogSize = field(default=LogSize(0, 0, None))
    """Size of the log when it was last looked at."""
    _swept: float = -math.inf
    """Time of the last sweep."""

    async def run(self) -> None:
        """Look after the log until cancelled."""
        while True:
            try:
                await self.once()
            except LogError as error:
                logger.warning("old trees could not be expired: %s", error)
            except Exception:  # a mistake of ours must not end the upkeep for good
                logger.exception("old trees could not be expired")
            await asyncio.sleep(self.settings.every_seconds)

    async def once(self) -> None:
        """Expire what the settings say, look at what is left, sweep if it is time. Raises `LogError`."""
        days, most = self.settings.days, self.settings.bytes
        if days is not None or most is not None:
            done = await self.log.expire(older_than=None if days is None else days * DAY, keep_bytes=most)
            if done.trees:
                self.expired(done.trees)
                logger.info("expired %d trees and %d records of feedback on them", done.trees, done.feedback)
        self.figures = await self.log.size()
        if self.now() - self._swept >= self.sweep_seconds:
            if swept := await self.log.sweep():
                logger.info("removed %d objects that no tree names", swept)
            self._swept = self.now()

    @property
    def oldest_seconds(self) -> float:
        """Age of the oldest tree; 0 in an empty log."""
        oldest = self.figures.oldest
        return 0.0 if oldest is None else max(0.0, self.now() - oldest)
