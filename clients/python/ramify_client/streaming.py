"""Bytes as they come, turned into lines, events of a search, and records of the log. No I/O.

Both streams of the server are lines: Server-Sent Events
(https://html.spec.whatwg.org/multipage/server-sent-events.html), and one JSON document a line (NDJSON).
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from pydantic import ValidationError

from ramify_client import calls
from ramify_client.calls import Call
from ramify_client.errors import ConnectionFailed, InvalidAnswer, RamifyError, search_error
from ramify_client.results import LogRecord, SearchEvent
from ramify_client.retries import wait_after

LONGEST_LINE = 256 << 20
"""Bytes; a tree of some thousand nodes is a few MiB."""
_KINDS = {
    "search.started": "started",
    "search.progress": "progress",
    "search.completed": "completed",
    "batch.started": "started",
    "batch.completed": "completed",
}


class Lines:
    """Feed it bytes, take the lines that they complete, without their line end (LF or CRLF).

    A text's `splitlines` (httpx's `iter_lines` too) would also break at U+2028 and other characters that JSON strings
    may hold. A line that comes in many pieces is joined once.
    """

    def __init__(self, longest: int = LONGEST_LINE) -> None:
        self._longest = longest
        self._pieces: list[bytes] = []
        self._held = 0

    @property
    def unfinished(self) -> bool:
        """Tell whether a line has begun that has not ended."""
        return self._held > 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the lines that `chunk` completes. Raises `InvalidAnswer` at a line of more than `longest` bytes."""
        first, *others = chunk.split(b"\n")
        self._hold(first)
        for piece in others:
            line = b"".join(self._pieces)
            self._pieces, self._held = [], 0
            self._hold(piece)
            yield line.removesuffix(b"\r")

    def _hold(self, piece: bytes) -> None:
        if piece:
            self._pieces.append(piece)
            self._held += len(piece)
        if self._held > self._longest:
            raise InvalidAnswer(f"a line of the answer is longer than {self._longest} bytes")


class EventReader:
    """Feed it bytes, take the events that they complete. Comments and events of unknown names are skipped."""

    def __init__(self, longest: int = LONGEST_LINE) -> None:
        self._longest = longest
        self._lines = Lines(longest)
        self._name = b""
        self._data: list[bytes] = []
        self._held = 0
        self._last = "search.completed"
        self.completed = False
        """True once the last event of the search, or of the batch, has been read."""

    def feed(self, chunk: bytes) -> Iterator[SearchEvent]:
        """Yield the events that `chunk` completes. Raises `InvalidAnswer`, and `SearchError` at an `error` event."""
        for line in self._lines.feed(chunk):
            if line:
                self._field(line)
                continue
            name, body = self._name.decode("utf-8", "replace"), b"\n".join(self._data)
            self._name, self._data, self._held = b"", [], 0
            event = self._event(name, body)
            if event is not None:
                yield event

    def _field(self, line: bytes) -> None:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            self._name = value
        elif field == b"data":
            self._data.append(value)
            self._held += len(value) + 1
            if self._held > self._longest:
                raise InvalidAnswer(f"an event is longer than {self._longest} bytes")

    def _event(self, name: str, body: bytes) -> SearchEvent | None:
        if name == "error":
            raise search_error(body)
        if name not in _KINDS:
            return None
        if name == "batch.started":
            self._last = "batch.completed"
        self.completed = name == self._last
        kind = _KINDS[name]
        return _parsed(name, "answered" if kind == "completed" and not self.completed else kind, body)


def _parsed(name: str, kind: str, body: bytes) -> SearchEvent:
    try:
        fields = json.loads(body)
        if name == "search.completed":
            found = {"id": fields["id"], "answer": fields["answer"], "index": fields.get("index")}
            fields = {**found, "result": fields}
        return SearchEvent.model_validate({**fields, "kind": kind})
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise InvalidAnswer(f"not a {name} event: {error}"[:500]) from error


class LogReader:
    """Reads the records with a `seq` above `after`, at most `limit`, and knows how to go on if the connection breaks.

    max_retries: further tries after the last record that came.
    """

    def __init__(self, after: int, limit: int | None, max_retries: int) -> None:
        self._after, self._limit, self._max_retries = after, limit, max_retries
        self._tried = 0
        self._lines = Lines()

    def call(self) -> Call[LogRecord]:
        """Return the request for what is still to be read."""
        self._lines = Lines()
        self._tried += 1
        return calls.read_trees(self._after, self._limit)

    def feed(self, call: Call[LogRecord], chunk: bytes) -> Iterator[LogRecord]:
        """Yield the records that `chunk` completes. Raises `InvalidAnswer`."""
        for line in self._lines.feed(chunk):
            if line:
                record = call.parse(line)
                self._after, self._tried = record.seq, 1
                self._limit = None if self._limit is None else self._limit - 1
                yield record

    def end(self) -> None:
        """Note that the answer has ended. Raises `ConnectionFailed` if it ended inside a record."""
        if self._lines.unfinished:
            raise ConnectionFailed("the log's answer ended inside a record")

    @property
    def full(self) -> bool:
        """Tell whether `limit` records have come."""
        return self._limit is not None and self._limit <= 0

    def wait(self, error: RamifyError, longest: float) -> float | None:
        """Return the seconds to wait before going on after an error, less than `longest`; None: raise the error."""
        return wait_after(error, self._tried, self._max_retries, True, longest)
