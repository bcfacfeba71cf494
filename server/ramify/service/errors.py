"""Every refusal and failure that a caller can meet.

ServiceError
├── BadRequest          a field is wrong: which, and what is allowed
├── Unauthorized        no API key, or an unknown one
├── Forbidden           the key lacks a scope, or the host is not ours
├── NotFound            no such model, search, tree or consumer, or not the asker's
├── Conflict            the state of things forbids it now
│   ├── ActivationInProgress   one release at a time
│   ├── ReleaseRejected        its gate has said no
│   ├── ActivationFailed       it was not taken; the release before is served
│   └── Cancelled              its own asker ended it
├── OtherBody           an Idempotency-Key was used before with another body
├── Busy                too much runs at once; `retry_after` says when to try again
│   ├── KeyBusy         this key's own searches fill the server
│   └── ServerBusy      everyone's do, or the server is draining
├── EngineUnavailable   an engine is dead or does not answer
├── LogUnavailable      the log takes no writes: full, or away
├── NoAnswer            the deadline came before any answer existed
├── SearchFailed        the search or the log failed in a way that is ours to mend
└── GenerationFailed    a plain completion did
"""

from __future__ import annotations

DRAINED = "the server is shutting down or drained (POST /admin/drain): no more work until it is started again"
"""What is said of a drain, and what ends it."""


class ServiceError(Exception):
    """`message` is for people; `code` is for programs and never changes."""

    code: str = "error"

    def __init__(self, message: str, *, param: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        """Path of the field at fault, such as `search.budget.tokens`."""
        self.retry_after = retry_after
        """Whole seconds after which trying again makes sense."""


class BadRequest(ServiceError):
    code = "invalid_value"


class Unauthorized(ServiceError):
    code = "invalid_api_key"


class Forbidden(ServiceError):
    code = "forbidden"


class NotFound(ServiceError):
    code = "not_found"


class Conflict(ServiceError):
    code = "conflict"


class ActivationInProgress(Conflict):
    code = "activation_in_progress"


class ReleaseRejected(Conflict):
    code = "release_rejected"


class ActivationFailed(Conflict):
    code = "activation_failed"


class Cancelled(Conflict):
    code = "cancelled"


class OtherBody(ServiceError):
    code = "idempotency_key_reused"


class Busy(ServiceError):
    code = "busy"


class KeyBusy(Busy):
    code = "key_over_share"


class ServerBusy(Busy):
    code = "server_full"


class EngineUnavailable(ServiceError):
    code = "engine_unavailable"


class LogUnavailable(ServiceError):
    code = "log_unavailable"


class NoAnswer(ServiceError):
    code = "no_answer"


class SearchFailed(ServiceError):
    code = "search_failed"


class GenerationFailed(ServiceError):
    code = "generation_failed"
