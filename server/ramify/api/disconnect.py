"""Work that ends when its client leaves: every wait is raced against the connection's end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive

Result = TypeVar("Result")


class ClientGone(Exception):
    """The client has left; nobody reads the answer."""


def nobody() -> Response:
    """The answer for a client that has left; nginx's number for it, seen only in our own log."""
    return Response(status_code=499)


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled where the client leaves first. Raises `ClientGone`.

    The request's body must have been read: what `receive` gives next is the disconnect.
    """
    task, gone = asyncio.create_task(work), asyncio.create_task(left(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        for unfinished in (task, gone):
            unfinished.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def left(receive: Receive) -> None:
    """Returns once the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
