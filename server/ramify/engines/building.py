"""Engines started side by side, and ended together where one of them fails or the start is given up.

vLLM's start blocks its thread until the engine is ready: seconds, or minutes on a busy machine. A thread cannot be
cancelled, and neither asyncio nor the interpreter ends before it; but it ends as soon as the process that it waits for
does. So a start that is given up kills the processes that it has brought about. (Before, a command that was told to end
while its engines started went on until they were ready.)
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

from ramify.engines.launch import Launch

if TYPE_CHECKING:
    from ramify.engines.backend import Backend

LOOK_EVERY = 0.1
"""Seconds between two looks for processes to kill: one may still be on its way."""
ENGINE_NAME = "EngineCore"
"""How vLLM names the processes of its engines, data-parallel ones with a suffix."""


async def build_all(plans: Sequence[Launch]) -> list[Backend]:
    """Start engines, each in a thread. Where one fails, or this is cancelled, none is left."""
    from ramify.engines.backend import Backend

    others = _engine_processes()
    pool = ThreadPoolExecutor(len(plans), "engine-start")
    jobs = [pool.submit(Backend.build, plan) for plan in plans]
    pool.shutdown(wait=False)
    waiting = [asyncio.wrap_future(job) for job in jobs]
    try:
        await asyncio.wait(waiting)
    except asyncio.CancelledError:
        for one in waiting:
            one.cancel()
        await asyncio.shield(asyncio.to_thread(_give_up, jobs, others))
        raise
    failures = [error for one in waiting if (error := one.exception())]
    backends = [one.result() for one in waiting if not one.exception()]
    if failures:
        await asyncio.gather(*(backend.close() for backend in backends))
        raise failures[0]
    return backends


def _engine_processes() -> set[BaseProcess]:
    return {process for process in multiprocessing.active_children() if process.name.startswith(ENGINE_NAME)}


def _give_up(jobs: Sequence[Future[Backend]], others: set[BaseProcess]) -> None:
    """End every start and the engine processes it has brought about, which are not among `others`. Blocks until the
    threads are done."""
    while wait(jobs, timeout=LOOK_EVERY).not_done:
        for process in _engine_processes() - others:
            process.kill()
    for job in jobs:
        if not job.cancelled() and job.exception() is None:
            job.result().kill()
