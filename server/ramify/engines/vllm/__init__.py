"""The only door to vLLM: nothing outside this package imports it. `docs/vllm.md` lists every internal that it leans on.

| module | what it is |
|---|---|
| `watching` | the ends of draws that vLLM does not see: stop strings and hurdles, token by token |
| `prefixes` | requests that begin within a block of the KV cache, where an earlier one was |
| `seeds` | draws by seeds on a CPU, for little more than draws without |
| `scheduler` | vLLM's scheduler made for searches |
| `value_head` | the value head in the workers: a logit for each sampled token |
| `core_process` | what runs inside the engine processes: executors, workers, progress, their end with the server |
| `start` | the start of one engine |
| `engine` | `VllmEngine`, the port of `engines.ports` on a running `AsyncLLM` |
| `openai_serving` | plain completions by vLLM's own OpenAI serving classes |

Importing vLLM takes seconds and reads its settings from the environment. So this module imports none of the above until
one of its functions is called: first `prepare_vllm`, then the others, off the event loop.
"""

from __future__ import annotations

import gc
import importlib
import math
import os
import platform
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ramify.engines.limiter import EngineLimiter
from ramify.engines.ports import Engine
from ramify.search.cutting import MAX_STOPS

if TYPE_CHECKING:
    from ramify.engines.start import Launch
    from ramify.engines.vllm.openai_serving import OpenAIServing

RUN_FOLDER = "RAMIFY_ENGINE_RUN_FOLDER"
"""Variable with the folder of the engines' sockets; it goes when the server goes."""
SERVER = "RAMIFY_ENGINE_SERVER"
"""Variable with the process id of the server, which its engines do not outlive."""


def prepare_vllm(log_level: str, start_timeout: float, cache_dir: Path | None = None) -> None:
    """Set the variables that vLLM reads when it is first imported in this process.

    What is set already stays, except for the cache's folder if `cache_dir` is given."""
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
    ends an import here, and cannot end the one that `Engines.start` would run in a thread."""
    prepare_vllm(log_level, start_timeout, cache_dir)
    was_enabled = gc.isenabled()
    gc.disable()  # an import makes next to no garbage, and looking for it took a fifth of the time (2026-11-30)
    try:
        with warnings.catch_warnings(action="ignore"):  # of vLLM's and torch's own making, dozens of them
            importlib.import_module("ramify.engines.vllm.engine")
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def engine_environment(threads: int, folder: str) -> Iterator[None]:
    """Set the variables that engine processes start under. vLLM itself adds preloaded libraries for them; afterwards
    this process's own environment is as before, so that other children inherit none of it."""
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


def on_cpu() -> bool:
    """Return whether the installed vLLM computes on the CPU."""
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def multiplies_bfloat16() -> bool:
    """Return False on an x86 CPU without instructions for bfloat16, True on any other machine. Without them a product
    of two matrices takes four times as long as in float32 (AVX-512, 2026-11-28)."""
    import torch

    if not on_cpu() or platform.machine() not in ("x86_64", "AMD64"):
        return True
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def start_engine(launch: Launch) -> Engine:
    """Start an engine and wait until it is ready: seconds to minutes. Blocks; run it in a thread.

    Raises `EngineStartFailed`."""
    from ramify.engines.vllm.engine import VllmEngine
    from ramify.engines.vllm.start import start_llm

    return VllmEngine(launch, *start_llm(launch))


def check_parsers(tool_parser: str | None, reasoning_parser: str | None, tokenizer: Any) -> None:
    """Make sure that vLLM knows the parsers and that they work with the Hugging Face tokenizer.

    Raises `EngineStartFailed`."""
    if tool_parser is not None or reasoning_parser is not None:
        from ramify.engines.vllm import openai_serving

        openai_serving.check_parsers(tool_parser, reasoning_parser, tokenizer)


def serve_openai(engine: Engine, limiter: EngineLimiter, adapter: Callable[[], str | None]) -> OpenAIServing:
    """Plain completions on a policy's engine, with the adapter that a call finds named; the first call takes a quarter
    of a second."""
    from ramify.engines.vllm.engine import VllmEngine
    from ramify.engines.vllm.openai_serving import OpenAIServing

    assert isinstance(engine, VllmEngine)
    return OpenAIServing(engine, limiter, adapter)
