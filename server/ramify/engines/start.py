"""The start of the engines: from a configuration to running processes.

`launches` computes what each engine is started with; `build_all` starts the engines, side by side if memory allows it,
and ends them all if one fails or the start is given up.

vLLM measures free memory while an engine starts and assumes that nobody else's use changes meanwhile. So engines that
share a GPU start one after the other, unless each is told how much its KV cache may take.

vLLM's start blocks its thread until the engine is ready: seconds, or minutes on a busy machine. A thread cannot be
cancelled, and neither asyncio nor the interpreter ends before it; but it ends as soon as the process that it waits for
does. So a start that is given up kills the processes that it has started. (Before, a command that was told to end
while its engines started went on until they were ready.)
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
import sysconfig
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from ramify.engine_options import EngineOptions
from ramify.engines.config import EngineConfig, default_kv_bytes, default_threads
from ramify.engines.errors import EngineStartFailed
from ramify.engines.judges import ONE_LABEL, Reading
from ramify.engines.model_folders import ModelFolder
from ramify.engines.ports import Engine

Role = str
"""Part that an engine has: `policy`; `value`, the only model that judges or the release's own; `scorer_NAME`."""
CPU_BLOCK = 32
"""Tokens of a KV block on a CPU: the smallest that its kernels take. With vLLM's 128, short sequences share nothing."""
LOOK_EVERY = 0.1
"""Seconds between two looks at how engines start, or for processes to kill: one may still be on its way."""
ENGINE_NAME = "EngineCore"
"""Beginning of the names that vLLM gives to the processes of its engines."""


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything that one engine is started with."""

    role: Role
    path: Path
    cpu: bool
    options: EngineOptions
    """As the settings give them. The fields below are what they come to for this model on this machine."""
    dtype: str
    """Precision of the weights: "bfloat16", "float32", ..."""
    kv_bytes: int | None
    """Bytes of the KV cache; `None`, on a GPU: what `gpu_fraction` leaves."""
    gpu_fraction: float
    """GPU only: share of the card's memory, in (0, 1)."""
    block_size: int | None
    """Tokens of a KV block; `None`: vLLM's choice."""
    threads: int
    """CPU only."""
    compile: bool
    reading: Reading = ONE_LABEL
    """How the model judges, if its role is to."""


def launches(
    config: EngineConfig,
    policy: ModelFolder,
    judges: Mapping[Role, tuple[ModelFolder, Reading]],
    *,
    cpu: bool,
    bfloat16: bool = True,
) -> list[Launch]:
    """Return a launch for the policy, then one for each model that judges, which share the GPU's memory that is theirs
    equally. bfloat16: whether the machine has instructions for it; else weights in bfloat16 are served in float32, as
    long as nobody says otherwise."""
    options = config.options
    parts: list[tuple[Role, ModelFolder, Reading, int | None, float]] = [
        ("policy", policy, ONE_LABEL, options.policy_kv_bytes, options.policy_gpu_fraction)
    ]
    for role, (folder, reading) in judges.items():
        share = options.value_gpu_fraction / len(judges)
        parts.append((role, folder, reading, options.value_kv_bytes, share))
    return [
        Launch(
            role=role,
            path=folder.path,
            cpu=cpu,
            options=options,
            dtype=_precision(folder, options, bfloat16),
            kv_bytes=kv_bytes or (default_kv_bytes() if cpu else None),
            gpu_fraction=gpu_fraction,
            block_size=options.block_size or (CPU_BLOCK if cpu else None),
            threads=options.threads or default_threads(len(parts) - (config.server is not None) or 1),
            compile=can_compile(cpu) if options.compile is None else options.compile,
            reading=reading,
        )
        for role, folder, reading, kv_bytes, gpu_fraction in parts
    ]


def _precision(folder: ModelFolder, options: EngineOptions, bfloat16: bool) -> str:
    if options.dtype != "auto":
        return options.dtype
    return folder.dtype if bfloat16 or folder.dtype != "bfloat16" else "float32"


def can_compile(cpu: bool) -> bool:
    """Return whether torch can compile models here: on a CPU it calls a C++ compiler, with Python's own headers."""
    compilers = filter(None, (os.environ.get("CXX"), "g++", "clang++"))
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return not cpu or (any(map(shutil.which, compilers)) and headers.is_file())


def at_once(plans: Sequence[Launch], cpu: bool) -> int:
    """Return how many engines may start at the same time."""
    return len(plans) if cpu or all(plan.kv_bytes is not None for plan in plans) else 1


async def build_all(
    plans: Sequence[Launch],
    side_by_side: int,
    build: Callable[[Launch], Engine],
    look: Callable[[], None] | None = None,
) -> list[Engine]:
    """Start engines in the order of their plans, each in a thread, `side_by_side` of them at a time.

    If one fails, or this is cancelled, none is left. build: starts one engine and blocks until it is ready. look:
    called every now and then while they start."""
    others = _engine_processes()
    pool = ThreadPoolExecutor(side_by_side, "engine-start")
    failed = threading.Event()

    def start(plan: Launch) -> Engine:
        if failed.is_set():
            raise EngineStartFailed(f"the {plan.role} engine was not started: another did not start")
        try:
            return build(plan)
        except BaseException:
            failed.set()
            raise

    # Start each in a thread, and look at them until all are done.
    jobs = [pool.submit(start, plan) for plan in plans]
    pool.shutdown(wait=False)
    waiting = [asyncio.wrap_future(job) for job in jobs]
    try:
        while (await asyncio.wait(waiting, timeout=LOOK_EVERY))[1]:
            if look is not None:
                look()
    except asyncio.CancelledError:  # the threads cannot be cancelled, so end what they wait for
        for one in waiting:
            one.cancel()
        await asyncio.shield(asyncio.to_thread(_give_up, jobs, others))
        raise
    # One failure fails all: whoever is up already is closed again.
    failures = [error for one in waiting if (error := one.exception())]
    engines = [one.result() for one in waiting if not one.exception()]
    if failures:
        await asyncio.gather(*(engine.close() for engine in engines))
        raise failures[0]
    return engines


def _engine_processes() -> set[BaseProcess]:
    return {process for process in multiprocessing.active_children() if process.name.startswith(ENGINE_NAME)}


def _give_up(jobs: Sequence[Future[Engine]], others: set[BaseProcess]) -> None:
    """End every start and the engine processes it has brought about, which are not among `others`. Blocks until the
    threads are done."""
    while wait(jobs, timeout=LOOK_EVERY).not_done:
        for process in _engine_processes() - others:
            process.kill()
    for job in jobs:
        if not job.cancelled() and job.exception() is None:
            job.result().kill()
