"""Errors of a trainer, whose messages say what to change; and which errors pass by themselves."""

from __future__ import annotations

from ramify.weights import StoreAway
from ramify_client import Conflict, ConnectionFailed, RateLimited, RequestTimeout, ServerError

AWAY = (ConnectionFailed, RequestTimeout, ServerError, RateLimited)
"""Errors of a server that is away or busy, and will be back."""


class TrainerError(Exception):
    """Any error of the trainer's own."""


class CollectionFailed(TrainerError):
    """The server did not take or did not finish a search."""


def is_unreachable(error: BaseException) -> bool:
    """Return True if a server has no connection to give, broke it, or says itself that it cannot serve now (503)."""
    error = _cause(error)
    if isinstance(error, ServerError):
        return error.status == 503
    return isinstance(error, ConnectionFailed)


def is_transient(error: BaseException) -> bool:
    """Return True if the same may succeed later without anybody changing anything here."""
    error = _cause(error)
    if isinstance(error, Conflict):
        return error.code == "activation_in_progress"
    return isinstance(error, (*AWAY, StoreAway))


def _cause(error: BaseException) -> BaseException:
    """Return the error that a collection failed of; any other error as it is."""
    return error.__cause__ or error if isinstance(error, CollectionFailed) else error
