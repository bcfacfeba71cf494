"""The one thread of a trainer that computes, which can be halted, and which lives long without growing.

(2026-11-30, 2 million parameters, bfloat16 on a CPU, rounds of two steps of 6,000 tokens: the process held 996, 1138,
1207 and 1265 MB after four of them, though nothing of a round was alive; with bounded caches, and freed memory given
back, 452, 473, 475 and 479 MB. Every shape of a batch left 1.1 MB a layer in two caches of 1,024 kernels; new shapes
took no longer with 64.)
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

Done = TypeVar("Done")
CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
"""Variables of oneDNN and of PyTorch's layer above it, which read them when they first compute."""
KERNELS = 64
"""Kernels that each of them keeps: those of one batch, since every batch has a shape of its own."""


def _bound_caches() -> None:
    """Bound the caches of kernels for matrices in bfloat16 on a CPU, unless the environment does."""
    for name in CACHES:
        os.environ.setdefault(name, str(KERNELS))


def _give_back() -> None:
    """Give the system what the C library keeps of freed memory, which is most of it: small things that live long lie
    among a step's tensors. Without glibc, do nothing."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _done(work: Callable[..., Done], *arguments: Any) -> Done:
    try:
        return work(*arguments)
    finally:
        _give_back()


class WorkCancelled(Exception):
    """The work was cancelled by whoever waited for it."""


class ComputeThread:
    """Does one piece of work after the other. Work that is cancelled ends at its next `check`, and what it has freed
    goes back to the system when it ends. A context manager, which ends the thread."""

    def __init__(self) -> None:
        _bound_caches()
        self._pool = ThreadPoolExecutor(1, "ramify-trainer")
        self._halt = threading.Event()

    async def run(self, work: Callable[..., Done], *arguments: Any) -> Done:
        """Return what `work` returns. If cancelled, tell the work to halt and wait until it has: two never run at
        once."""
        future = asyncio.get_running_loop().run_in_executor(self._pool, _done, work, *arguments)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self._halt.set()
            await asyncio.wait({future})
            self._halt.clear()
            future.exception()
            raise

    def check(self) -> None:
        """Called by the work between two steps. Raises `WorkCancelled`."""
        if self._halt.is_set():
            raise WorkCancelled

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the thread once its work has ended."""
        self._pool.shutdown(wait=False)
