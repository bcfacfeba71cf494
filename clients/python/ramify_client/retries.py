"""When a call is tried again, and after how long. No I/O, no clock of its own."""

from __future__ import annotations

import random
from dataclasses import dataclass

from ramify_client.errors import ConnectionFailed, RamifyError, ResponseError

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
        if tried > self.most or not _worth_another(error, repeatable):
            return None
        said = error.retry_after if isinstance(error, ResponseError) else None
        backoff = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (tried - 1)) * random.uniform(0.75, 1.25)
        wait = backoff if said is None else said
        return wait if wait < left else None


def _worth_another(error: RamifyError, repeatable: bool) -> bool:
    if isinstance(error, ResponseError):
        if error.should_retry is not None:
            return error.should_retry and repeatable
        refused = error.status in (429, 503)  # nothing was done
        if error.status == 409 and error.code not in (None, "conflict"):
            return False  # a stale version or another's lease stays what it is
        return refused or (repeatable and error.status in AGAIN)
    return repeatable and isinstance(error, ConnectionFailed)
