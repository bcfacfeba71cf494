"""From a configuration to what each engine is started with."""

from __future__ import annotations

import os
import shutil
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ramify.engines.checkpoints import Checkpoint
from ramify.engines.config import EngineConfig, default_kv_bytes, default_threads

Role = Literal["policy", "value"]
CPU_BLOCK = 32
"""Tokens of a KV block on a CPU: the smallest that its kernels take. With vLLM's 128, short sequences share nothing."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How one engine is started."""

    role: Role
    path: Path
    dtype: str
    max_model_len: int | None
    max_num_seqs: int
    cpu: bool
    kv_bytes: int | None
    """Bytes of the KV cache; `None`, on a GPU: what `gpu_fraction` leaves."""
    gpu_fraction: float
    """GPU only."""
    tensor_parallel: int
    block_size: int | None
    threads: int
    compile: bool
    tool_parser: str | None = None
    tool_strict_level: str = "auto"
    reasoning_parser: str | None = None
    structured_outputs: str = "auto"
    """vLLM's backend of constrained output."""


def launches(config: EngineConfig, policy: Checkpoint, value: Checkpoint | None, cpu: bool) -> list[Launch]:
    """One for the policy, and one for the value model where there is one."""
    parts: list[tuple[Role, Checkpoint, int | None, float]] = [
        ("policy", policy, config.policy_kv_bytes, config.policy_gpu_fraction)
    ]
    if value is not None:
        parts.append(("value", value, config.value_kv_bytes, config.value_gpu_fraction))
    return [
        Launch(
            role=role,
            path=checkpoint.path,
            dtype=checkpoint.dtype if config.dtype == "auto" else config.dtype,
            max_model_len=config.max_model_len,
            max_num_seqs=config.max_num_seqs,
            cpu=cpu,
            kv_bytes=kv_bytes or (default_kv_bytes() if cpu else None),
            gpu_fraction=gpu_fraction,
            tensor_parallel=config.tensor_parallel,
            block_size=config.block_size or (CPU_BLOCK if cpu else None),
            threads=config.threads or default_threads(len(parts)),
            compile=can_compile(cpu) if config.compile is None else config.compile,
            tool_parser=config.tool_parser,
            tool_strict_level=config.tool_strict_level,
            reasoning_parser=config.reasoning_parser,
            structured_outputs=config.structured_outputs,
        )
        for role, checkpoint, kv_bytes, gpu_fraction in parts
    ]


def can_compile(cpu: bool) -> bool:
    """Whether torch can compile models here: on a CPU it calls a C++ compiler, with Python's own headers."""
    compilers = filter(None, (os.environ.get("CXX"), "g++", "clang++"))
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return not cpu or (any(map(shutil.which, compilers)) and headers.is_file())
