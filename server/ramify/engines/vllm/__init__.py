"""Environment variables that steer vLLM: its own settings, and what its engine processes start with."""

from __future__ import annotations

import importlib
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ramify.search.cutting import MAX_STOPS

RUN_FOLDER = "RAMIFY_ENGINE_RUN_FOLDER"
"""The folder of the engines' sockets; it goes when the server goes."""
SERVER = "RAMIFY_ENGINE_SERVER"
"""Process id of the server, which its engines do not outlive."""


def prepare_vllm(log_level: str, start_timeout: float, cache_dir: Path | None = None) -> None:
    """Settings read when vLLM is first imported in this process. What is set already stays, unless `cache_dir` is
    given."""
    if cache_dir is not None:
        os.environ["VLLM_CACHE_ROOT"] = str(cache_dir.absolute())
    for name, value in {
        "VLLM_LOGGING_LEVEL": log_level,
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_ENGINE_READY_TIMEOUT_S": str(math.ceil(start_timeout)),
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_MAX_STOP_STRINGS": str(MAX_STOPS),  # vLLM's own default is 4
    }.items():
        os.environ.setdefault(name, value)


def preload(log_level: str, start_timeout: float, cache_dir: Path | None = None) -> None:
    """Import vLLM, which takes seconds, on this thread. For commands, whose event loop has nothing else to do: a signal
    ends an import here, and cannot end the one that `Engines.start` would have in a thread."""
    prepare_vllm(log_level, start_timeout, cache_dir)
    with warnings.catch_warnings(action="ignore"):
        importlib.import_module("ramify.engines.vllm.engine")


@contextmanager
def engine_environment(threads: int, folder: str) -> Iterator[None]:
    """What engine processes are started under. vLLM itself adds preloaded libraries for them; afterwards this
    process's own environment is as before, so that other children inherit none of it."""
    before = dict(os.environ)
    os.environ |= {
        RUN_FOLDER: folder,
        SERVER: str(os.getpid()),
        "VLLM_RPC_BASE_PATH": folder,
        "OMP_NUM_THREADS": str(threads),
        "PYTHONWARNINGS": "ignore",
    }
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ |= before
