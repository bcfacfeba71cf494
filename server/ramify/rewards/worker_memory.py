"""How much memory a worker process may take, and whether a call went near it.

A hard limit alone would not do: libraries catch `MemoryError` with every other exception and then answer "not
equal". So a call that took the process past half of the limit counts as failed, whatever it answered. (A
single allocation of more than the other half is refused by the limit and can still be swallowed; with inputs
of a few thousand characters, such an integer takes longer to compute than any deadline.)
"""

from __future__ import annotations

import contextlib
import re
import resource
from pathlib import Path

STATUS = Path("/proc/self/status")
EXCEEDED = 0.5
"""Share of the limit past which a call has failed."""
WORN = 0.35
"""Share of the limit from which a process is replaced after its call."""


class Memory:
    """The address space of this process, in bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def limit(self) -> None:
        """Have the kernel refuse memory past the limit, where it can (Linux; macOS has no such limit)."""
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (self._limit, self._limit))

    def exceeded(self) -> bool:
        """Whether the process ever took more than a call may."""
        return _size("VmPeak") > EXCEEDED * self._limit

    def worn(self) -> bool:
        """Whether the process holds so much that a fresh one should take its place."""
        return _size("VmSize") > WORN * self._limit


def _size(field: str) -> int:
    try:
        status = STATUS.read_text()
    except OSError:
        return 0
    found = re.search(rf"{field}:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0
