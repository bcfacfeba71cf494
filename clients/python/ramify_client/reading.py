"""Where a reader of the log is, so that it can go on after a broken connection. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ramify_client import calls
from ramify_client.calls import Call
from ramify_client.errors import ConnectionFailed, RamifyError
from ramify_client.lines import Lines
from ramify_client.results import LogRecord
from ramify_client.retries import Retries


@dataclass
class Reading:
    """The records with a `seq` above `after`, at most `limit`."""

    after: int
    limit: int | None
    retries: Retries
    tried: int = 0
    """Tries since the last record."""
    _lines: Lines = field(default_factory=Lines)

    def call(self) -> Call[LogRecord]:
        """What to ask for now."""
        self._lines = Lines()
        self.tried += 1
        return calls.read_trees(self.after, self.limit)

    def feed(self, call: Call[LogRecord], chunk: bytes) -> Iterator[LogRecord]:
        """The records that these bytes complete. Raises `InvalidAnswer`."""
        for line in self._lines.feed(chunk):
            if line:
                record = call.parse(line)
                self.after, self.tried = record.seq, 1
                self.limit = None if self.limit is None else self.limit - 1
                yield record

    def ended(self) -> None:
        """The answer has ended. Raises `ConnectionFailed` where it ended inside a record."""
        if self._lines.unfinished:
            raise ConnectionFailed("the log's answer ended inside a record")

    @property
    def full(self) -> bool:
        """Whether all that was asked for has come."""
        return self.limit is not None and self.limit <= 0

    def wait(self, error: RamifyError, longest: float) -> float | None:
        """Seconds to wait before going on after an error, less than `longest`; None where it is the end."""
        return self.retries.wait(error, self.tried, True, longest)
