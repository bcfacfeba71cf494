"""The settings of the engines, and the release that they serve."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ramify.search.records import Action

if TYPE_CHECKING:
    from ramify.engines.scorer import ScorerFactory
    from ramify.weights import Release

Dtype = Literal["auto", "bfloat16", "float16", "float32"]
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Serving:
    """The model that is offered, and the release whose weights the engines hold.

    There is one at a time: `Engines.serving`. Another release takes its place in a single assignment, so that no reader
    sees half of each; whoever needs several of its fields reads it once.
    """

    name: str = "local"
    """Name under which the model is asked for."""
    release: str = "local"
    """Release id that every continuation and score carries."""
    created: int = 0
    """Unix seconds."""
    source: Release | None = None
    """The release's files; `None` for a policy and a value model that are no release."""
    calibration: tuple[float, float] = (1.0, 0.0)
    """(a, b) of value = sigmoid(a · logit + b)."""
    task: str | None = None
    """Task of requests that name none."""
    action: Action | None = None
    """Default action."""
    max_tokens: int | None = None
    """Default cap on one answer."""
    vocabulary: int = 0
    """Token ids below it exist in both models. An engine given another one dies, so none gets past the service; with 0
    no token ids are taken from outside."""
    judged: bool = True
    """True with a value model, or a scorer in its place."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """A policy, a value model, and how much of the machine they may take. `None` stands for a default computed from
    the machine."""

    policy: Path
    """Hugging Face directory of a causal language model, safetensors."""
    value: Path | None = None
    """Hugging Face directory of a sequence classifier with one label; `None` serves the policy alone, and then
    whatever needs a judgement of the model fails with a message that says so."""
    serving: Serving = Serving()
    """The model and the release that the two directories hold."""
    scorer: ScorerFactory | None = None
    """The scorer of searches in place of the value model's; `None`: the value model's."""
    dtype: Dtype = "auto"
    """Precision of the weights; `auto` is the checkpoint's own (vLLM's own `auto` would halve float32 unasked)."""
    max_model_len: int | None = None
    """Tokens of prompt and answer together; `None`: the model's own limit."""
    max_num_seqs: int = 256
    """Sequences that each engine runs at once."""
    max_waiting: int = 8192
    """Sequences that may wait for an engine before further ones are refused with `EngineBusy`."""
    seeded: bool = True
    """Each draw follows its own seed. Off, draws share one random stream: a little faster, not repeatable."""
    policy_kv_bytes: int | None = None
    """Memory of the policy's KV cache, bytes. On a GPU `None` leaves it to `policy_gpu_fraction`."""
    value_kv_bytes: int | None = None
    """The same for the value model. GPU: with both given, the engines start side by side."""
    policy_gpu_fraction: float = 0.55
    """GPU: share of the card's memory for the policy, weights and KV cache, (0, 1)."""
    value_gpu_fraction: float = 0.3
    """GPU: the same for the value model. The two must leave some free."""
    tensor_parallel: int = 1
    """GPUs that the policy and the value model are each spread over."""
    block_size: int | None = None
    """Tokens of one KV block; `None`: 32 on a CPU, vLLM's own choice on a GPU."""
    threads: int | None = None
    """CPU: threads of each engine."""
    compile: bool | None = None
    """Compile the models at start-up (cached on disk): slower to start the first time, faster after. `None`: yes on a
    GPU, and on a CPU if a C++ compiler is found."""
    tool_parser: str | None = None
    """vLLM's parser of tool calls in the policy's text; `None`: no tool can be called."""
    tool_strict_level: str = "auto"
    """Degree to which tool calls are constrained, by vLLM's name."""
    reasoning_parser: str | None = None
    """vLLM's parser of reasoning in the policy's text; `None`: reasoning is part of the answer."""
    structured_outputs: str = "auto"
    """vLLM's backend of constrained output."""
    cache_dir: Path | None = None
    """Folder of compiled models, kept between starts; `None`: vLLM's own place, `~/.cache/vllm`."""
    log_level: str = "ERROR"
    """Level of vLLM's own log."""
    start_timeout: float = 900.0
    """Seconds that an engine may take to become ready."""


def default_kv_bytes() -> int:
    """A twenty-fourth of the machine's memory, 1/4 to 4 GiB: a GiB holds 350,000 tokens of the demo model."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(GIB // 4, min(4 * GIB, total // 24))


def default_threads(engines: int) -> int:
    """An equal share of the cores that this process may use, one of them kept for the server; at least 1.

    More threads than free cores is much slower, not slightly faster: every layer waits for the slowest thread, and on
    a busy machine two threads on two cores were 10 times slower than one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, (cores - 1 + engines // 2) // engines)
