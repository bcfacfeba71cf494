"""The errors of engines.

::

    EngineError                other weights were not taken, or a judgement is none; the message says which
    ├── EngineStartFailed      a model that cannot be served, or an engine process that ended before it was ready
    ├── EngineBusy             the queue in front of an engine is full
    ├── ScorerUnreachable    another server that judges did not answer in time
    ├── EngineHeld             no progress within a probe's deadline, for weights are being replaced
    └── RequestRefused         the engine refuses this request: a prompt that is too long, a token that does not exist

    search.protocols.EngineDead   an engine is gone for good (the search knows this one, so it lives there)
    └── PolicyUnreachable      the server that has the policy is away; it may come back
"""

from __future__ import annotations

from ramify.search.protocols import EngineDead

NO_VALUE_MODEL = (
    "this server has no value model to judge texts by: start it with one (--value PATH, --value-head FILE, a "
    "release, or [scorer] in its settings). Searches need none: they go by the policy's own confidence, or by a "
    "task's verifier"
)
"""Says what is missing, and what can be had without it."""


class EngineError(RuntimeError):
    """Base of this family."""


class EngineStartFailed(EngineError):
    """A model that cannot be served, or an engine process that ended before it was ready."""


class EngineBusy(EngineError):
    """The queue in front of an engine is full."""


class ScorerUnreachable(EngineError):
    """Another server that judges did not answer in time, or not what it should; a later try may succeed."""


class PolicyUnreachable(EngineDead):
    """The server that has the policy did not answer: a search that needs it ends, and a later one may succeed."""


class EngineHeld(EngineError, TimeoutError):
    """An engine made no progress within a deadline, since requests wait while its weights are replaced."""


class RequestRefused(EngineError, ValueError):
    """The engine refuses this request, and would refuse it again."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        """The field at fault, if the engine names one."""
