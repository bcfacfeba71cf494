"""The options of the engines, declared once: the settings' table `[engine]`, with which `ramify.engines` starts.

Settings and engines know nothing of each other, so this stands below both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class EngineOptions(BaseModel):
    """The vLLM engines. Absent values are computed from the machine."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    # vLLM's own `auto` would halve float32 unasked.
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        default="auto",
        description="Precision of the weights; `auto` is the checkpoint's own, but float32 for bfloat16 on an x86 CPU "
        "without instructions for it.",
    )
    max_model_len: int | None = Field(
        default=None, ge=2, description="Tokens of prompt and answer together; none: the model's own limit."
    )
    max_num_seqs: int = Field(default=256, ge=1, description="Sequences that each engine runs at once.")
    max_waiting: int = Field(
        default=8192, ge=1, description="Sequences that may wait for an engine; the next one is refused."
    )
    seeded: bool = Field(
        default=True,
        description="Each draw follows its own seed. Off: a little faster, not repeatable.",
    )
    policy_kv_bytes: int | None = Field(
        default=None,
        ge=1 << 20,
        description="Bytes of the policy's KV cache; none, on a GPU: by `policy_gpu_fraction`.",
    )
    value_kv_bytes: int | None = Field(
        default=None,
        ge=1 << 20,
        description="Bytes of the value model's KV cache. GPU: with both given the engines start side by side, "
        "else one after the other.",
    )
    policy_gpu_fraction: float = Field(
        default=0.55,
        gt=0,
        lt=1,
        description="GPU: share of the card's memory for the policy.",
    )
    value_gpu_fraction: float = Field(
        default=0.3,
        gt=0,
        lt=1,
        description="GPU: the same for the value model; some memory must be left.",
    )
    tensor_parallel: int = Field(default=1, ge=1, description="GPUs that each model is spread over.")
    block_size: int | None = Field(
        default=None,
        ge=1,
        description="Tokens of one KV block; none: 32 on a CPU, else vLLM's choice.",
    )
    threads: int | None = Field(default=None, ge=1, description="CPU: threads of each engine.")
    compile: bool | None = Field(
        default=None,
        description="Compile the models at start-up; none: on a GPU, and on a CPU with a C++ compiler.",
    )
    tool_parser: str | None = Field(
        default=None,
        max_length=100,
        description="vLLM's parser of tool calls in what the model writes, such as `hermes`; none: `tools` are "
        "refused. An unknown name is answered at start with those that there are.",
    )
    tool_strict_level: Literal["auto", "function", "parameter"] = Field(
        default="auto",
        description="Degree to which vLLM constrains tool calls: `auto` holds arguments to the schema of tools that "
        "say `strict: true`, `function` constrains the form of every call, `parameter` the arguments too.",
    )
    reasoning_parser: str | None = Field(
        default=None,
        max_length=100,
        description="vLLM's parser of reasoning in what the model writes, such as `qwen3`; none: it is part of the "
        "answer.",
    )
    structured_outputs: Literal["auto", "xgrammar", "guidance", "outlines", "lm-format-enforcer"] = Field(
        default="auto", description="vLLM's backend of constrained output."
    )
    cache_dir: Path | None = Field(
        default=None,
        description="Folder in which compiled models are kept between starts; none: `~/.cache/vllm`. In a container, a "
        "volume.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="ERROR", description="Level of vLLM's own log."
    )
    start_timeout: float = Field(
        default=900.0, gt=0, description="Seconds that an engine may take to become ready."
    )
