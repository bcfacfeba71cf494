"""A trainer that lives long holds no more after a round than before it."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from torch import Tensor, nn

from fakes_training import training, write_release
from ramify_trainer.compute_thread import ComputeThread
from ramify_trainer.loop.training import learn

SHAPES = """
import ctypes, torch
from ramify_trainer.compute_thread import ComputeThread
ComputeThread()
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena b c d e f g used h i".split()]
used = ctypes.CDLL(None).mallinfo2
used.restype = Info
layer = torch.nn.Linear(64, 64)
for rows in range(300):
    with torch.autocast("cpu", torch.bfloat16):
        layer(torch.zeros(32 + rows, 64)).sum().backward()
    if rows in (149, 299):
        print(used().used)
"""
"""Prints the bytes in use after 150 and after 300 shapes of a batch."""


FREED = """
import asyncio, os, torch
from pathlib import Path
from ramify_trainer.compute_thread import ComputeThread

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

kept = []

def held_below_what_stays():
    freed = [torch.ones(25_000) for _ in range(1_000)]
    kept.append(torch.ones(100))
    del freed
    return resident()

with ComputeThread() as worker:
    print(asyncio.run(worker.run(held_below_what_stays)), resident())
"""
"""Fills 100 MB, puts one small thing behind it that stays, and frees the 100 MB. Prints the bytes that the process
holds then, and after the work."""


def told(script: str) -> list[int]:
    """Return the numbers that a new process prints, in whose memory no other test has left holes."""
    bounded = {k: v for k, v in os.environ.items() if not k.endswith("CACHE_CAPACITY")}
    shown = subprocess.run(
        [sys.executable, "-c", script], env=bounded, check=True, capture_output=True, text=True, timeout=300
    )
    return [int(number) for number in shown.stdout.split()]


def test_what_work_has_freed_goes_back_to_the_system_also_from_below_what_stays() -> None:
    held, after = told(FREED)
    assert after < held - 80e6


@pytest.mark.anyio
async def test_nothing_of_a_round_is_alive_after_it_nor_its_thread(tmp_path: Path) -> None:
    base = write_release(tmp_path / "weights")

    def alive() -> int:
        return sum(issubclass(type(each), (nn.Module, Tensor)) for each in gc.get_objects())

    threads = set(threading.enumerate())
    with ComputeThread() as worker:
        await worker.run(learn, training(tmp_path / "first", base), lambda *_: None)
        before = alive()
        await worker.run(learn, training(tmp_path / "second", base), lambda *_: None)
        assert alive() == before
    (mine,) = {t for t in threading.enumerate() if t.name.startswith("ramify-trainer")} - threads
    mine.join(60)
    assert not mine.is_alive()


def test_batches_of_ever_new_shapes_leave_no_kernels_behind() -> None:
    half, whole = told(SHAPES)
    assert whole - half < 15e6  # with 1,024 kernels in each cache: 170 MB
