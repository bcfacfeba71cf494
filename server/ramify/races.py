"""Tasks of which the first to end, or to fail, decides: a request and its client's leaving, the parts of one whole.

Whoever loses is cancelled and waited for, so that nothing goes on behind the back of what comes next. Server and
trainer stand on it, so it knows nothing of either.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


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


async def all_of(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run coroutines side by side and return what they do, in order.

    The first that fails ends the others, and its error is raised as it is."""
    tasks = [asyncio.create_task(one) for one in work]
    async with beside(*tasks):
        return await asyncio.gather(*tasks)


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they have ended, however they end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
