"""Server-Sent Events, read as they come."""

from __future__ import annotations

import json
from collections.abc import Iterator

from pydantic import ValidationError

from ramify_client.errors import InvalidAnswer, search_error
from ramify_client.results import SearchEvent

LONGEST_EVENT = 64 << 20
"""Bytes; a tree of some thousand nodes is a few MiB."""
_KINDS = {"search.started": "started", "search.progress": "progress", "search.completed": "completed"}


class Reader:
    """Feed it bytes, take the events that they complete. Comments and events of unknown names are left out."""

    def __init__(self) -> None:
        self._rest = b""
        self.completed = False
        """Whether the last event of a search has been read."""

    def feed(self, chunk: bytes) -> Iterator[SearchEvent]:
        """Raises `SearchError` at an `error` event, and `InvalidAnswer`."""
        *whole, self._rest = (self._rest + chunk).replace(b"\r\n", b"\n").split(b"\n\n")
        if len(self._rest) > LONGEST_EVENT:
            raise InvalidAnswer(f"an event is longer than {LONGEST_EVENT} bytes")
        for block in whole:
            event = self._event(block)
            if event is not None:
                yield event

    def _event(self, block: bytes) -> SearchEvent | None:
        name, data = "", []
        for line in block.split(b"\n"):
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"event":
                name = value.decode("utf-8", "replace")
            elif field == b"data":
                data.append(value)
        body = b"\n".join(data)
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
