"""The standing of a server: whether it may take requests, and answer those that it has taken.

A server that does not hold the release that it should hold is not ready and takes nothing: one whose active release
cannot be loaded, and a replica of a fleet that lags behind or has lost sight of the fleet. Whoever finds that out says
so here; admission and readiness ask.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from ramify.service.errors import ServiceError

RETRY_AFTER = 2
"""Seconds."""


@dataclass(eq=False, slots=True)
class Standing:
    """The standing of one server. All calls on one event loop."""

    clock: Callable[[], float] = time.monotonic
    """Seconds, monotonic."""
    refusal: str | None = None
    """Why no request is admitted; `None` if they are."""
    waiting: str | None = None
    """Why requests wait in the queue for now, so that a balancer does better to send them elsewhere."""
    answers_until: float = math.inf
    """Time on `clock` from which on nothing may be answered, not even what was admitted before."""

    def lapsed(self) -> str | None:
        """Return why nothing may be answered any more; `None` if what was admitted may be."""
        if self.clock() < self.answers_until:
            return None
        return "this replica has not reached its fleet's database for longer than its lease"

    def problem(self) -> str | None:
        """Return why no request is admitted; `None` if they are."""
        return self.refusal or self.lapsed()

    def require_answerable(self, stopped: str | None = None) -> None:
        """Raise `ServiceError` (`not_ready`) if what was admitted may not be answered, not even as far as it has come.

        stopped: why it was stopped unanswered, if it was: it stays so, though the server may answer again by now."""
        if why := stopped or self.lapsed():
            raise not_ready(why)

    def require(self) -> None:
        """Raise `ServiceError` (`not_ready`) unless a request that does not queue may be answered now."""
        if why := self.problem() or self.waiting:
            raise not_ready(why)


def not_ready(why: str) -> ServiceError:
    return ServiceError("not_ready", f"not ready: {why}", retry_after=RETRY_AFTER)
