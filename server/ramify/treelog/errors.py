"""Everything that can go wrong with the log, as one family.

    LogError                 the log refuses something: a value, an unknown tree, a log that is closed or read-only
    ├── StoreError           the store failed, is full or is late: trying again later may help
    ├── CorruptTree          a stored body is not what was written
    ├── ConsumerConflict     the consumer has moved on, or another owner holds its lease
    └── BadCursor            a cursor beyond the log, or backwards

A subclass exists if callers handle it in a way of its own. Errors of SQLAlchemy and of the drivers are translated at
one edge (`store.translated`) and chained.
"""

from __future__ import annotations

from typing import Literal


class LogError(Exception):
    """Anything that the log refuses or fails to do."""


class StoreError(LogError):
    """The database failed, or had no room or no time for a write; the tree or feedback itself is not at fault."""


class CorruptTree(LogError):
    """A stored body that is not what was written; `tree_id` and `problem` say which and why."""

    def __init__(self, tree_id: str, problem: str) -> None:
        super().__init__(f"{tree_id}: {problem}")
        self.tree_id = tree_id
        self.problem = problem


class ConsumerConflict(LogError):
    """A change to a consumer that lost against another: `code` says whether to its version or to its lease."""

    def __init__(self, message: str, code: Literal["stale_version", "lease_held"]) -> None:
        super().__init__(message)
        self.code = code


class BadCursor(LogError):
    """A cursor that a consumer cannot be moved to."""
