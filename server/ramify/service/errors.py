"""Every refusal and failure that a caller can meet: one class with a code, and a subclass for each that is caught here.

ServiceError
├── BadRequest          a field is wrong: which one, and what is allowed
├── ActivationFailed    a release was not taken; the one before is served
└── SearchFailed        the search failed, or its tree will never be in the log
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from ramify.engines.errors import (
    NO_VALUE_MODEL,
    EngineBusy,
    PolicyUnreachable,
    RequestRefused,
    ScorerUnreachable,
)
from ramify.search.protocols import EngineDead

DRAINED = "the server is shutting down or drained (POST /admin/drain): no more work until it is started again"
"""Says that the server is drained, and what ends that."""
ENGINE_DIED = "an engine has died; the server is about to restart"

Code = Literal[
    "invalid_value",  # a field is wrong
    "invalid_api_key",  # no API key, or an unknown one
    "forbidden",  # the key lacks a scope
    "not_found",  # no such search, tree, release or consumer, or not the caller's
    "model_not_found",
    "conflict",  # the present state forbids it
    "lease_held",  # another process reads for this consumer
    "stale_version",  # the consumer has changed since it was read
    "activation_in_progress",  # one release at a time
    "release_rejected",  # its gate has said no
    "activation_failed",
    "cancelled",  # the caller ended it
    "idempotency_key_reused",  # with another body
    "key_over_share",  # this key's own requests fill the server
    "server_full",  # everyone's do, or the server is draining
    "engine_unavailable",  # an engine is dead or does not answer
    "not_ready",  # this server does not hold the release that it should
    "log_unavailable",  # the log takes no writes: full, or away
    "no_answer",  # the deadline came before any answer existed
    "search_failed",
    "generation_failed",  # a plain completion or a judgement failed
]


class ServiceError(Exception):
    """A refusal or a failure. `message` is for people; `code` is for programs and never changes."""

    def __init__(
        self, code: Code, message: str, *, param: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        """Path of the field at fault, such as `search.budget.tokens`."""
        self.retry_after = retry_after
        """Whole seconds after which trying again makes sense."""


class BadRequest(ServiceError):
    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__("invalid_value", message, param=param)


class ActivationFailed(ServiceError):
    def __init__(self, message: str) -> None:
        super().__init__("activation_failed", message)


class SearchFailed(ServiceError):
    def __init__(self, message: str, code: Code = "search_failed", *, retry_after: int | None = None) -> None:
        super().__init__(code, message, retry_after=retry_after)


def from_engine(
    error: Exception | None, engine: Literal["policy", "value"] | None = None, param: str | None = None
) -> ServiceError | None:
    """Translate an engine's error into what every route answers for it; `None` if the error is another.

    engine: the one that was asked, if that is known. param: the field at fault unless the engine names one."""
    name = f"the {engine} engine" if engine else "an engine"
    if isinstance(error, PolicyUnreachable):
        return ServiceError("engine_unavailable", str(error), retry_after=5)
    if isinstance(error, EngineDead):
        return ServiceError("engine_unavailable", f"{name} has died", retry_after=30)
    if isinstance(error, EngineBusy):
        return ServiceError("server_full", f"{name}'s queue is full", retry_after=2)
    if isinstance(error, ScorerUnreachable):
        return ServiceError("engine_unavailable", str(error), retry_after=5)
    if isinstance(error, RequestRefused):
        return BadRequest(str(error)[:500], param=error.param or param)
    return None


# -- refusals that several routes share --------------------------------------------------------------------------


def over(param: str, value: float, cap: float) -> BadRequest:
    """Refuse a value above the server's cap."""
    return BadRequest(f"is {value:g}; this server takes at most {cap:g}", param=param)


def no_value_model(param: str) -> BadRequest:
    return BadRequest(NO_VALUE_MODEL, param=param)


def unknown_model(asked: str, served: str) -> ServiceError:
    message = f"no model {asked[:100]!r} here; this server has {served!r}"
    return ServiceError("model_not_found", message, param="model")


def require_token_ids(tokens: Iterable[int], vocabulary: int, param: str) -> None:
    """Raise `BadRequest` for a token id that the models do not have: an engine that is given one dies."""
    if not all(0 <= token < vocabulary for token in tokens):
        raise BadRequest(f"holds a token id outside 0 to {vocabulary - 1}", param=param)
