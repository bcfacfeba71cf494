"""What became of verifier calls, for metrics."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from ramify.rewards.errors import FailureKind


@dataclass(slots=True)
class Counters:
    """Running totals since the start; each only rises. A wrong answer is graded; a failure is none of its
    counts."""

    graded: int = 0
    """Gradings that ended in a verdict, right or wrong."""
    calls: int = 0
    """Calls of any function that a worker finished."""
    failed_deadline: int = 0
    """Calls whose worker was killed for taking too long."""
    failed_crash: int = 0
    """Calls whose worker died, or ran into its memory limit."""
    failed_error: int = 0
    """Calls whose function raised."""
    failed_overload: int = 0
    """Calls that were never started: the queue was full, or they waited in it for too long."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def finished(self) -> None:
        """Count a finished call."""
        with self._lock:
            self.calls += 1

    def failed(self, kind: FailureKind) -> None:
        """Count a failed call."""
        with self._lock:
            name = f"failed_{kind}"
            setattr(self, name, getattr(self, name) + 1)

    def grading(self) -> None:
        """Count a verdict."""
        with self._lock:
            self.graded += 1

    def snapshot(self) -> dict[str, int]:
        """Every total by name, for metrics."""
        with self._lock:
            return {
                "graded": self.graded,
                "calls": self.calls,
                "failed_deadline": self.failed_deadline,
                "failed_crash": self.failed_crash,
                "failed_error": self.failed_error,
                "failed_overload": self.failed_overload,
            }
