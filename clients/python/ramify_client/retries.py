"""When a call is tried again, and after how long. No I/O."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ramify_client.errors import ConnectionFailed, RamifyError, RequestTimeout, ResponseError

FIRST_WAIT = 0.5
LONGEST_WAIT = 30.0
"""Seconds, if the server does not say."""
AGAIN = frozenset({408, 409, 429, 500, 502, 503})


def wait_after(
    error: RamifyError, tried: int, max_retries: int, repeatable: bool, left: float
) -> float | None:
    """Return the seconds to wait before the next try; None if there is to be none.

    tried: tries so far. left: seconds until the deadline of the whole call; a wait beyond it is not begun.
    """
    if tried > max_retries or not (repeatable and _worth_another(error)):
        return None
    asked = error.retry_after if isinstance(error, ResponseError) else None
    backoff = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (tried - 1)) * random.uniform(0.75, 1.25)
    wait = backoff if asked is None else asked
    return wait if wait < left else None


@dataclass
class Attempts:
    """The tries of one call, which together may take `seconds`."""

    max_retries: int
    repeatable: bool
    seconds: float
    clock: Callable[[], float] = time.monotonic
    tried: int = 0
    _deadline: float = field(init=False)

    def __post_init__(self) -> None:
        self._deadline = self.clock() + self.seconds

    def begin(self) -> float:
        """Count one more try and return the seconds that it may take. Raises `RequestTimeout` if none are left."""
        self.tried += 1
        return self.left()

    def left(self) -> float:
        """Return the seconds until the deadline, above 0. Raises `RequestTimeout` if it has passed."""
        left = self._deadline - self.clock()
        if left <= 0:
            raise RequestTimeout(f"the call's {self.seconds:g} seconds are over")
        return left

    def wait(self, error: RamifyError) -> float | None:
        """Return the seconds to wait after a failed try; None if there is to be no other."""
        left = self._deadline - self.clock()
        return wait_after(error, self.tried, self.max_retries, self.repeatable, left)


def _worth_another(error: RamifyError) -> bool:
    if isinstance(error, ResponseError):
        if error.should_retry is not None:
            return error.should_retry
        if error.status == 409 and error.code not in (None, "conflict"):
            return False  # a stale version or another's lease stays what it is
        return error.status in AGAIN
    return isinstance(error, ConnectionFailed)
