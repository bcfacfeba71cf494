"""What can go wrong with the log, as one family.

    LogError
    ├── BadUrl              the URL names no store that this build can open
    ├── StoreLocked         another process writes this SQLite file
    ├── SchemaMismatch      the store's schema is not this build's
    ├── StoreError          the database failed (disk full, connection lost)
    ├── LogClosed           used after `close`
    ├── ReadOnlyLog         a write to a log opened with `read_only`
    ├── LogFull             no room in the queue of writes before the deadline; nothing was written
    ├── LogDeadline         not acknowledged before the deadline; it may still be committed
    ├── BadEntry            a tree or verdict that cannot be logged, or holds a value that the database cannot
    ├── DuplicateTree       another tree is logged under this id
    ├── UnknownTree         no such tree
    ├── CorruptTree         a stored body that is not what was written
    ├── StaleVersion        the consumer has moved on since it was read
    ├── LeaseHeld           another owner holds the consumer's lease
    ├── BadCursor           a cursor beyond the log, or backwards
    └── UnknownRelease      no such release

Errors of SQLAlchemy and of the drivers are translated at one edge (`engine.translated`) and chained.
"""

from __future__ import annotations


class LogError(Exception):
    """Anything that the log refuses or fails to do."""


class BadUrl(LogError):
    pass


class StoreLocked(LogError):
    pass


class SchemaMismatch(LogError):
    pass


class StoreError(LogError):
    pass


class LogClosed(LogError):
    pass


class ReadOnlyLog(LogError):
    pass


class LogFull(LogError):
    pass


class LogDeadline(LogError):
    pass


class BadEntry(LogError):
    pass


class DuplicateTree(LogError):
    pass


class UnknownTree(LogError):
    pass


class CorruptTree(LogError):
    """`tree_id` and `problem` say which and why."""

    def __init__(self, tree_id: str, problem: str) -> None:
        super().__init__(f"{tree_id}: {problem}")
        self.tree_id = tree_id
        self.problem = problem


class StaleVersion(LogError):
    """`version` is the consumer's present version, `None` where it is not registered."""

    def __init__(self, message: str, version: int | None) -> None:
        super().__init__(message)
        self.version = version


class LeaseHeld(LogError):
    """`owner` holds the lease until `expires` (Unix seconds)."""

    def __init__(self, message: str, owner: str, expires: float) -> None:
        super().__init__(message)
        self.owner = owner
        self.expires = expires


class BadCursor(LogError):
    pass


class UnknownRelease(LogError):
    pass
