"""When a call is tried again, and after how long. No I/O."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ramify_client.errors import ConnectionFailed, RamifyError, RequestTimeout, ResponseError

FIRST_WAIT = 0.5
LONGEST_WAIT = 30.0
"""Seconds, where the server does not say."""
AGAIN = frozenset({408, 409, 429, 500, 502, 503})


@dataclass(frozen=True)
class Retries:
    """At most `most` more tries, as long as the waits end before the call's deadline."""

    most: int = 2

    def wait(self, error: RamifyError, tried: int, repeatable: bool, left: float) -> float | None:
        """Seconds to wait before the next try; None where there is to be none.

        tried: tries so far. left: seconds until the deadline of the whole call.
        """
        if tried > self.most or not (repeatable and _worth_another(error)):
            return None
        said = error.retry_after if isinstance(error, ResponseError) else None
        backoff = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (tried - 1)) * random.uniform(0.75, 1.25)
        wait = backoff if said is None else said
        return wait if wait < left else None


@dataclass
class Attempts:
    """The tries of one call, which together may take `seconds`."""

    retries: Retries
    repeatable: bool
    seconds: float
    clock: Callable[[], float] = time.monotonic
    tried: int = 0
    _deadline: float = field(init=False)

    def __post_init__(self) -> None:
        self._deadline = self.clock() + self.seconds

    def begin(self) -> float:
        """Count one more try; the seconds that it may take. Raises `RequestTimeout` where none are left."""
        self.tried += 1
        return self.left()

    def left(self) -> float:
        """Seconds until the deadline, above 0. Raises `RequestTimeout` where it is over."""
        left = self._deadline - self.clock()
        if left <= 0:
            raise RequestTimeout(f"the call's {self.seconds:g} seconds are over")
        return left

    def wait(self, error: RamifyError) -> float | None:
        """Seconds to wait after a try that has failed; None where there is to be no other."""
        return self.retries.wait(error, self.tried, self.repeatable, self._deadline - self.clock())


def _worth_another(error: RamifyError) -> bool:
    if isinstance(error, ResponseError):
        if error.should_retry is not None:
            return error.should_retry
        if error.status == 409 and error.code not in (None, "conflict"):
            return False  # a stale version or another's lease stays what it is
        return error.status in AGAIN
    return isinstance(error, ConnectionFailed)
