"""Tasks of which the first to end decides: a request and its client's leaving, a listener and a signal.

Whoever loses is cancelled and waited for, so that nothing goes on behind the back of what comes next. Server and
trainer stand on it, so it knows nothing of either.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def first_of(*tasks: asyncio.Task[Any]) -> AsyncIterator[None]:
    """Enter the block once one of `tasks` is done, and cancel those that are not when the block ends.

    Cancelled while it waits, it cancels all of them. What a task raised is for the block to find out::

        work, gone = asyncio.create_task(answer()), asyncio.create_task(left())
        async with first_of(work, gone):
            if not work.done():
                raise ClientDisconnect
            return work.result()
    """
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        yield
    finally:
        await cancel(*tasks)


@asynccontextmanager
async def beside(*tasks: asyncio.Task[Any]) -> AsyncIterator[None]:
    """Let `tasks` run for as long as the block does, then cancel those that are not done."""
    try:
        yield
    finally:
        await cancel(*tasks)


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they have ended, however they end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
