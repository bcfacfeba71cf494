"""The errors around a reward.

```
ValueError
├── BadProblem                a problem does not fit its task's schema
│   └── BadTask               no task has that name, or it cannot grade on this machine
├── BadDataset                a data set cannot be read: file, line, field
└── BadExtension              (ramify.extensions) a task of another package cannot be registered
GradingFailed                 (ramify.search) nothing is known about the answer
└── CallFailed                a verifier's worker gave no result: deadline, crash, error or overload
```
"""

from __future__ import annotations

from typing import Literal

from ramify.search.protocols import GradingFailed

FailureKind = Literal["deadline", "crash", "error", "overload"]
"""`deadline`: the worker was killed for taking too long. `crash`: it died, or ran into its memory limit.
`error`: the function raised. `overload`: the call was never started, for want of a free worker."""


class BadProblem(ValueError):
    """A problem does not fit its task's schema."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        """Dotted path inside the problem, such as `numbers.2`; `problem` for the whole of it."""
        self.message = message
        """The fault and what is allowed, without the field."""


class BadTask(BadProblem):
    """No task has that name, or it cannot grade on this machine: the message then says what to install."""


class BadDataset(ValueError):
    """A data set's name or one of its lines cannot be read."""

    def __init__(self, source: str, line: int | None, field: str | None, message: str) -> None:
        place = source if line is None else f"{source}, line {line}"
        super().__init__(f"{place}, {field}: {message}" if field else f"{place}: {message}")
        self.source = source
        """The file, or the name that was asked for."""
        self.line = line
        """From 1; `None` if no single line is at fault."""
        self.field = field
        """Dotted path inside the line's object; `None` for the whole of it."""
        self.message = message


class CallFailed(GradingFailed):
    """A worker process gave no result."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind: FailureKind = kind
