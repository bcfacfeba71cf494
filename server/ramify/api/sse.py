"""Server-Sent Events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ramify.api.disconnect import ClientGone, unless_gone

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


class EventStream(Response):
    """Sends events as they come. Where the client leaves, the iterator is closed (its `finally` runs)."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], headers: Mapping[str, str] | None = None) -> None:
        self.events = events
        self.status_code = 200
        self.background = None
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no", **(headers or {})})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            await unless_gone(receive, self._send_all(send))
        except ClientGone:
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_all(self, send: Send) -> None:
        async for chunk in self.events:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
