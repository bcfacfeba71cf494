"""Answers that last: work that ends when its client leaves, and Server-Sent Events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ramify.api import errors
from ramify.api.wire_common import ErrorBody
from ramify.races import first_of

Result = TypeVar("Result")
PING = b": ping\n\n"


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of `work`, or cancel it and raise `ClientDisconnect` if the client leaves first.

    The request's body must have been read: what `receive` gives next is the disconnect.
    """
    task, gone = asyncio.create_task(work), asyncio.create_task(_left(receive))
    async with first_of(task, gone):
        if not task.done():
            raise ClientDisconnect
        return task.result()


async def _left(receive: Receive) -> None:
    """Return once the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


# -- Server-Sent Events ------------------------------------------------------------------------------------------


def event(name: str | None, data: BaseModel | Mapping[str, Any] | bytes) -> bytes:
    """Write one event. OpenAI's clients know no names and take every event for a chunk: theirs has none."""
    if isinstance(data, BaseModel):
        data = data.model_dump_json().encode()
    elif not isinstance(data, bytes):
        data = json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()
    return (b"" if name is None else b"event: " + name.encode() + b"\n") + b"data: " + data + b"\n\n"


def comment(text: str) -> bytes:
    """Write a line that every client ignores."""
    return f": {text}\n\n".encode()


def error_event(error: ErrorBody) -> bytes:
    """Write the last event of a stream that broke off."""
    return event("error", error)


class EventStream(Response):
    """Sends events as they come.

    If the client leaves, the iterator is closed (its `finally` runs). If the iterator raises anything, the client is
    told before the stream ends.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncIterator[bytes],
        headers: Mapping[str, str] | None = None,
        on_error: Callable[[ErrorBody], bytes] = error_event,
    ) -> None:
        """on_error: writes the end of a stream that an error has broken off."""
        self.events = events
        self.on_error = on_error
        self.status_code = 200
        self.background = None
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no", **(headers or {})})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            await unless_gone(receive, self._send_all(send, scope.get("ramify_request_id", "unknown")))
        except ClientDisconnect:
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_all(self, send: Send, number: str) -> None:
        try:
            async for chunk in self.events:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except Exception as error:
            last = self.on_error(errors.stream_error(error, number))
            await send({"type": "http.response.body", "body": last, "more_body": True})
