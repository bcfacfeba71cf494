"""What can go wrong with engines.

::

    EngineError
    ├── BadModel           a checkpoint that cannot be served; said before anything is started
    ├── EngineStartFailed  an engine process ended before it was ready
    ├── EngineBusy         the queue in front of an engine is full
    ├── EngineStuck        no progress within a probe's deadline
    │   └── EngineHeld     none was possible: its weights are being replaced
    ├── ReloadFailed       an engine did not take other weights; what it holds now is unknown
    ├── RequestRefused     the engine refuses this request: a prompt that is too long, a token that does not exist
    └── BadScores          the value model returned something that is no judgement

    search.protocols.EngineDead   an engine is gone for good (the search knows this one, so it lives there)
"""

from __future__ import annotations


class EngineError(RuntimeError):
    """Base of this family."""


class BadModel(EngineError):
    """A checkpoint that cannot be served."""


class EngineStartFailed(EngineError):
    """An engine process ended before it was ready."""


class EngineBusy(EngineError):
    """The queue in front of an engine is full."""


class EngineStuck(EngineError, TimeoutError):
    """An engine made no progress within a deadline."""


class EngineHeld(EngineStuck):
    """Requests wait while an engine's weights are replaced."""


class ReloadFailed(EngineError):
    """An engine did not take other weights: what it holds now is unknown."""


class RequestRefused(EngineError, ValueError):
    """The engine refuses this request, and would refuse it again."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        """The field at fault, where the engine says."""


class BadScores(EngineError):
    """The value model's output is no judgement of what was asked: NaN, or another number of values."""
