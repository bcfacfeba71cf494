"""Which errors mean that the server is away or busy, and will be back."""

from __future__ import annotations

from collections.abc import Iterator

from ramify_client import Conflict, ConnectionFailed, RateLimited, RequestTimeout, ServerError
from ramify_trainer.errors import CollectionFailed

AWAY = (ConnectionFailed, RequestTimeout, ServerError, RateLimited)
FIRST_WAIT = 1.0
"""Seconds."""


def passing(error: BaseException) -> bool:
    """Whether the same may succeed later without anybody changing anything here."""
    if isinstance(error, CollectionFailed):
        return error.__cause__ is not None and passing(error.__cause__)
    if isinstance(error, Conflict):
        return error.code == "activation_in_progress"
    return isinstance(error, AWAY)


def waits(longest: float) -> Iterator[float]:
    """Seconds between tries: they double up to `longest`."""
    wait = min(FIRST_WAIT, longest)
    while True:
        yield wait
        wait = min(2 * wait, longest)
