"""Server-Sent Events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ramify.api import errors
from ramify.api.disconnect import ClientGone, unless_gone
from ramify.api.wire_common import ErrorBody

PING = b": ping\n\n"


def event(name: str, data: BaseModel | bytes) -> bytes:
    """One event; `data` is a wire model, or its JSON."""
    text = data if isinstance(data, bytes) else data.model_dump_json().encode()
    return b"event: " + name.encode() + b"\ndata: " + text + b"\n\n"


def data(content: Mapping[str, Any]) -> bytes:
    """A frame without a name, as OpenAI's clients read them."""
    return b"data: " + json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"


def named(name: str, content: Mapping[str, Any]) -> bytes:
    """An event whose data is JSON."""
    return b"event: " + name.encode() + b"\n" + data(content)


def comment(text: str) -> bytes:
    """A line that every client leaves out."""
    return f": {text}\n\n".encode()


def error_event(error: ErrorBody) -> bytes:
    """The last event of a stream that broke off."""
    return event("error", error)


class EventStream(Response):
    """Sends events as they come. If the client leaves, the iterator is closed (its `finally` runs). If the iterator
    raises, whatever it is, the client is told before the stream ends."""

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncIterator[bytes],
        headers: Mapping[str, str] | None = None,
        told: Callable[[ErrorBody], bytes] = error_event,
    ) -> None:
        """told: the end of a stream that an error has broken off."""
        self.events = events
        self.told = told
        self.status_code = 200
        self.background = None
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no", **(headers or {})})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            await unless_gone(receive, self._send_all(send, scope.get("ramify_request_id", "unknown")))
        except ClientGone:
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_all(self, send: Send, number: str) -> None:
        try:
            async for chunk in self.events:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except Exception as error:
            last = self.told(errors.stream_error(error, number))
            await send({"type": "http.response.body", "body": last, "more_body": True})
