"""Server-Sent Events, read as they come (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

import json
from collections.abc import Iterator

from pydantic import ValidationError

from ramify_client.errors import InvalidAnswer, search_error
from ramify_client.lines import LONGEST_LINE, Lines
from ramify_client.results import SearchEvent

_KINDS = {"search.started": "started", "search.progress": "progress", "search.completed": "completed"}


class Reader:
    """Feed it bytes, take the events that they complete. Comments and events of unknown names are left out."""

    def __init__(self, longest: int = LONGEST_LINE) -> None:
        self._longest = longest
        self._lines = Lines(longest)
        self._name = b""
        self._data: list[bytes] = []
        self._held = 0
        self.completed = False
        """Whether the last event of a search has been read."""

    def feed(self, chunk: bytes) -> Iterator[SearchEvent]:
        """Raises `SearchError` at an `error` event, and `InvalidAnswer`."""
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
        self.completed = name == "search.completed"
        return _parsed(_KINDS[name], body)


def _parsed(kind: str, body: bytes) -> SearchEvent:
    try:
        said = json.loads(body)
        if kind == "completed":
            said = {"id": said["id"], "answer": said["answer"], "result": said}
        return SearchEvent.model_validate({**said, "kind": kind})
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise InvalidAnswer(f"an event is no search.{kind}: {error}"[:500]) from error
