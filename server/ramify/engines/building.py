"""Engines started, side by side if they may be, and ended together if one of them fails or the start is given up.

vLLM measures what memory is left while an engine starts, and takes it that nobody else's use changes meanwhile. So
engines that share a GPU start one after the other, unless each is told how much its KV cache may take.

vLLM's start blocks its thread until the engine is ready: seconds, or minutes on a busy machine. A thread cannot be
cancelled, and neither asyncio nor the interpreter ends before it; but it ends as soon as the process that it waits for
does. So a start that is given up kills the processes that it has brought about. (Before, a command that was told to end
while its engines started went on until they were ready.)
"""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

from ramify.engines.errors import EngineStartFailed
from ramify.engines.launch import Launch

if TYPE_CHECKING:
    from ramify.engines.backend import Backend

LOOK_EVERY = 0.1
"""Seconds between two looks at how engines start, or for processes to kill: one may still be on its way."""
ENGINE_NAME = "EngineCore"
"""How vLLM names the processes of its engines, data-parallel ones with a suffix."""


def at_once(plans: Sequence[Launch], cpu: bool) -> int:
    """How many engines may start at the same time."""
    return len(plans) if cpu or all(plan.kv_bytes is not None for plan in plans) else 1


async def build_all(
    plans: Sequence[Launch],
    side_by_side: int,
    build: Callable[[Launch], Backend] | None = None,
    look: Callable[[], None] | None = None,
) -> list[Backend]:
    """Start engines in the order of their plans, each in a thread, `side_by_side` of them at a time. If one fails, or
    this is cancelled, none is left. `look` is called every now and then while they start."""
    if build is None:
        from ramify.engines.backend import Backend

        build = Backend.build
    others = _engine_processes()
    pool = ThreadPoolExecutor(side_by_side, "engine-start")
    failed = threading.Event()

    def start(plan: Launch) -> Backend:
        if failed.is_set():
            raise EngineStartFailed(f"the {plan.role} engine was not started: another did not start")
        try:
            return build(plan)
        except BaseException:
            failed.set()
            raise

    jobs = [pool.submit(start, plan) for plan in plans]
    pool.shutdown(wait=False)
    waiting = [asyncio.wrap_future(job) for job in jobs]
    try:
        while (await asyncio.wait(waiting, timeout=LOOK_EVERY))[1]:
            if look is not None:
                look()
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
