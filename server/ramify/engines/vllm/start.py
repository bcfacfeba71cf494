"""The start of one engine: from a launch to a running `AsyncLLM`."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping
from typing import Any, get_args

from vllm.config import PoolerConfig, StructuredOutputsConfig
from vllm.config.lora import MaxLoRARanks
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.metrics.loggers import PrometheusStatLogger

from ramify.engines.errors import EngineStartFailed
from ramify.engines.ports import EngineStats
from ramify.engines.start import Launch
from ramify.engines.vllm.core_process import ROLE, THREADS, PolicyWorker, executor


def start_llm(launch: Launch) -> tuple[AsyncLLM, EngineStats]:
    """Start an engine and wait until it is ready. Blocks. Raises `EngineStartFailed`."""
    stats, llm, problem = EngineStats(), None, ""
    try:
        llm = AsyncLLM.from_engine_args(
            AsyncEngineArgs(**_arguments(launch)), stat_loggers=[_stats_logger(stats)]
        )
    except Exception as error:
        problem = str(error)  # not chained: its frames hold sockets that vLLM leaves open
    if llm is None:
        gc.collect()
        raise EngineStartFailed(f"the {launch.role} engine for {launch.path} did not start: {problem}")
    # Only the per-token part; the figures of whole steps go on.
    llm.log_stats = llm.output_processor.log_stats = False
    return llm, stats


def _arguments(launch: Launch) -> Mapping[str, Any]:
    arguments: dict[str, Any] = {
        "model": str(launch.path),
        "dtype": launch.dtype,
        "max_model_len": launch.options.max_model_len,
        "max_num_seqs": launch.options.max_num_seqs,
        "tensor_parallel_size": launch.options.tensor_parallel,
        "distributed_executor_backend": executor(launch.options.tensor_parallel),
        "load_format": "safetensors",
        "enforce_eager": not launch.compile,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "trust_remote_code": False,
        "additional_config": {ROLE: launch.role},
    }
    if launch.block_size is not None:
        arguments["block_size"] = launch.block_size
    if launch.kv_bytes is not None:
        arguments["kv_cache_memory_bytes"] = launch.kv_bytes
    if launch.cpu:
        # A prompt taken in parts throws a sample away and rewinds its generator, which a CPU's cannot: the engine dies.
        arguments["enable_chunked_prefill"] = False
        arguments["additional_config"][THREADS] = launch.threads
    else:
        arguments["gpu_memory_utilization"] = launch.gpu_fraction
    if launch.role == "policy":
        arguments |= {
            "runner": "generate",
            "enable_prefix_caching": True,
            "logprobs_mode": "processed_logprobs",
            "max_logprobs": -1,
        }
        arguments["worker_extension_cls"] = f"{PolicyWorker.__module__}.{PolicyWorker.__qualname__}"
        if launch.options.adapters:
            ranks = (rank for rank in get_args(MaxLoRARanks) if rank >= launch.options.adapter_rank)
            # On a CPU, rows without an adapter are computed with the last slot (vLLM 0.32 indexes it by -1), and slots
            # are taken from the first on: one more than is ever used stays empty.
            arguments |= {
                "enable_lora": True,
                "max_loras": launch.options.adapters + launch.cpu,
                "max_lora_rank": min(ranks),
            }
        arguments["reasoning_parser"] = launch.options.reasoning_parser or ""
        arguments["structured_outputs_config"] = StructuredOutputsConfig(
            backend=launch.options.structured_outputs
        )
    else:
        # Whether prefixes are cached is left to vLLM: a model that is read as the mean of all states needs all of them.
        arguments |= {"runner": "pooling", "convert": "classify", "skip_tokenizer_init": True}
        if launch.reading.tokenwise:  # else vLLM picks the tokens of one publisher's tag, by an id of its own
            arguments["pooler_config"] = PoolerConfig(tok_pooling_type="ALL")
        if launch.reading.tokens is not None:
            # One label: the difference of the two tokens' rows of the language model's head.
            arguments["hf_overrides"] = {
                "method": "from_2_way_softmax",
                "classifier_from_token": list(launch.reading.tokens),
            }
    return arguments


def _stats_logger(stats: EngineStats) -> Any:
    """A factory of vLLM statistics loggers that only keep the newest figures, and stand in for Prometheus's."""

    class StatsLogger(PrometheusStatLogger):  # type: ignore[misc]
        def __init__(self, vllm_config: Any, engine_indexes: Any = None) -> None:
            pass

        def log_engine_initialized(self) -> None:
            pass

        def record(self, scheduler_stats: Any, *args: Any, **kwargs: Any) -> None:
            running = None if scheduler_stats is None else scheduler_stats.num_running_reqs
            stats.stepped(running, time.monotonic())
            if scheduler_stats is not None:
                stats.waiting = scheduler_stats.num_waiting_reqs
                stats.kv_usage = scheduler_stats.kv_cache_usage

        def log(self) -> None:
            pass

    return StatsLogger
