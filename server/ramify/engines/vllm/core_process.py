"""The engine's side: what runs in the engine processes that vLLM spawns.

vLLM's engine core is a spawned child that nothing stops when its parent is killed with SIGKILL: it would keep its
memory and its GPU for ever. So this module, which every engine core imports while it is still being set up (its
executor class lives here), starts a thread that looks every half second whether the server is still the parent, and
otherwise kills its own process and what that had started. Workers of a tensor-parallel engine hang on the core by
vLLM's own death pipe.

2026-11-22: prctl(PR_SET_PDEATHSIG) was not used: it fires when the *thread* that started the child ends, and engines
are started in threads. multiprocessing's parent sentinel was not used: it is not there yet when a child unpickles its
arguments, and a server killed in the minute after would leave its engines behind (it did).
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from safetensors.torch import load_file
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.platforms import current_platform
from vllm.v1.executor.abstract import Executor
from vllm.v1.executor.multiproc_executor import MultiprocExecutor
from vllm.v1.executor.uniproc_executor import UniProcExecutor
from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler

from ramify.engines.progress import KV_BYTES, PHASE
from ramify.engines.vllm import RUN_FOLDER, SERVER, seeds
from ramify.engines.vllm.prefixes import copy_blocks
from ramify.engines.vllm.scheduler import search_scheduler
from ramify.engines.vllm.value_head import ValueHead
from ramify.engines.vllm.watching import tokenizer_of

ROLE = "ramify_role"
"""Key in vLLM's `additional_config`: `policy` or `value`."""
THREADS = "ramify_threads"
"""Key in vLLM's `additional_config`: threads of the engine."""
LOOK_EVERY = 0.5
"""Seconds."""


def follow(server: int) -> None:
    """End this process, what it started and its sockets, as soon as `server` is no longer its parent.

    It also leaves the server's process group: Ctrl-C in a terminal is for the server, which drains before it ends."""
    os.setpgrp()

    def look() -> None:
        while os.getppid() == server:
            time.sleep(LOOK_EVERY)
        shutil.rmtree(os.environ.get(RUN_FOLDER, ""), ignore_errors=True)
        for child in psutil.Process().children(recursive=True):
            child.kill()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=look, name="follow-server", daemon=True).start()


if multiprocessing.current_process().name.startswith("EngineCore") and SERVER in os.environ:
    follow(int(os.environ[SERVER]))


class ProgressReporter:
    """A mix-in for executors: keep in a file what the engine is doing while it starts, and how large its KV cache is,
    for `progress`."""

    vllm_config: Any

    def determine_available_memory(self) -> Any:
        self._report("compiling and measuring memory")
        return super().determine_available_memory()  # type: ignore[misc]

    def initialize_from_config(self, kv_cache_configs: Any) -> Any:
        self._report("making its KV cache")
        size = sum(tensor.size for config in kv_cache_configs for tensor in config.kv_cache_tensors)
        self._keep(KV_BYTES, str(size))
        return super().initialize_from_config(kv_cache_configs)  # type: ignore[misc]

    def compile_or_warm_up_model(self) -> Any:
        self._report("compiling and warming up")
        return super().compile_or_warm_up_model()  # type: ignore[misc]

    def _report(self, phase: str) -> None:
        self._keep(PHASE, phase)

    def _keep(self, ending: str, text: str) -> None:
        role, folder = self.vllm_config.additional_config.get(ROLE), os.environ.get(RUN_FOLDER)
        if role and folder:
            part = Path(folder) / f"{role}{ending}.part"
            part.write_text(text, encoding="utf-8")
            part.replace(Path(folder) / f"{role}{ending}")


class InProcessExecutor(ProgressReporter, UniProcExecutor):  # type: ignore[misc]
    """Runs the model in the engine core itself.

    On a CPU vLLM would spawn a worker process beside the core and pass every step through shared memory; in the core
    the same steps were 20 % faster on two cores, and no shared memory is left behind by a kill."""

    def _init_executor(self) -> None:
        _take_threads(self.vllm_config)
        _compile_nothing_unasked(self.vllm_config)
        _spare_the_cpu()
        self._report("loading weights")
        super()._init_executor()
        _schedule_search_scheduler(self.vllm_config)


class ManyProcessExecutor(ProgressReporter, MultiprocExecutor):  # type: ignore[misc]
    """Spreads the model over several devices."""

    def _init_executor(self) -> None:
        self._report("loading weights")
        super()._init_executor()
        _schedule_search_scheduler(self.vllm_config)


class PolicyWorker:
    """Methods that vLLM adds to the class of a policy's workers (`worker_extension_cls`), called in each by name."""

    model_runner: Any

    def load_value_head(self, path: str) -> None:
        """Judge from now on by the head in `path`, in place of the one before if there is one."""
        runner = self.model_runner
        head = getattr(runner, "ramify_value_head", None)
        if head is None:
            head = runner.ramify_value_head = ValueHead(runner)
        tensors = load_file(path, device=str(runner.device))
        head.weight, head.bias = tensors["weight"][0], tensors["bias"]

    def renew_tied_output(self) -> None:
        """Have an output layer whose weight is the embedding's too take that weight anew.

        A reload takes such a layer for one without weights of its own and leaves it as it was. On a CPU it computes
        from a packed copy of the weight, which is then that of the weights before (vLLM 0.32)."""
        layers = [layer for layer in self.model_runner.get_model().modules() if hasattr(layer, "weight")]
        for output in layers:
            others = (layer.weight for layer in layers if layer is not output)
            if isinstance(output, ParallelLMHead) and any(weight is output.weight for weight in others):
                output.quant_method.process_weights_after_loading(output)


def executor(tensor_parallel: int) -> type[Executor]:
    chosen: type[Any] = InProcessExecutor if tensor_parallel == 1 else ManyProcessExecutor
    return chosen


def _take_threads(vllm_config: Any) -> None:
    import torch

    if threads := vllm_config.additional_config.get(THREADS):
        torch.set_num_threads(threads)


def _compile_nothing_unasked(vllm_config: Any) -> None:
    """`enforce_eager` leaves vLLM's small compiled functions, such as the ranks of log-probabilities, as they are: the
    first search would call a C++ compiler, and end the engine if there is none."""
    import torch

    if vllm_config.model_config.enforce_eager:
        torch._dynamo.config.disable = True


def _spare_the_cpu() -> None:
    """On a CPU, have this process's model runner copy blocks by `prefixes.copy_blocks`, and draw by
    `seeds.forward_cpu`."""
    from vllm.v1.worker import gpu_model_runner

    if current_platform.is_cpu():
        gpu_model_runner.copy_kv_cache_blocks_inplace = copy_blocks
        TopKTopPSampler.forward_cpu = seeds.forward_cpu


def _schedule_search_scheduler(vllm_config: Any) -> None:
    """The core makes its scheduler after its executor: here is the last word on which class it will be. (After the
    workers have started, which need not know it.)"""
    if vllm_config.additional_config.get(ROLE) == "policy":
        tokenizer_of(vllm_config.model_config.model)  # else the first draw that needs it would wait
    config = vllm_config.scheduler_config
    config.scheduler_cls = search_scheduler(config.get_scheduler_cls())
