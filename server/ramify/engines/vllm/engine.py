"""`VllmEngine`: one running vLLM engine behind the port `engines.ports.Engine`.

Beside its documented interface this leans on internals of vLLM (docs/vllm.md has the list): `AsyncLLM.add_request` and
its collectors (they hand over what an aborted request had generated, which `generate` throws away), the engine client's
own abort (the engine then has the last word, by `scheduler`), and the engine core's process handles (their end is the
earliest sign of death).
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
from vllm.exceptions import VLLMClientError
from vllm.lora.request import LoRARequest
from vllm.pooling_params import PoolingParams
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.engine.exceptions import EngineDeadError

from ramify.engines.errors import EngineError, RequestRefused
from ramify.engines.ports import (
    Engine,
    EngineStats,
    RawSample,
    Recording,
    SampleParams,
    SampleRequest,
    plain_cancellation,
)
from ramify.engines.start import Launch
from ramify.engines.vllm.scheduler import BARRED, LOGITS
from ramify.engines.vllm.watching import ABANDONED, BEGUN, STOP, WATCH
from ramify.search.protocols import EngineDead, SampleAborted

_AT_END = PoolingParams(task="classify", use_activation=False)
_EVERYWHERE = PoolingParams(task="token_classify", use_activation=False)
CLOSE_SECONDS = 2.0
"""Longest time that closing sockets may take."""
LOOK_EVERY = 0.005
"""Seconds between two looks at whether an engine has become idle, or its end is accounted for."""
LAST_WORD_SECONDS = 2.0
"""Longest time that an engine may take to say what an aborted request had generated: a step or two."""
STALLED_SECONDS = 0.5
"""Time without a step after which nothing more is waited for: a deadline must not be late for an engine that hangs."""
Prompt = tuple[Sequence[int], Any, LoRARequest | None]
"""Token ids, vLLM's parameters, and the adapter."""
EXIT_CODE_LOOKS = 400
"""Looks for the exit code of a process that has ended, before its end is reported without one."""


class VllmEngine(Engine):
    """One running vLLM engine."""

    def __init__(self, launch: Launch, llm: Any, stats: EngineStats) -> None:
        self.launch = launch
        self.stats = stats
        self.recording: Recording | None = None
        self.dead_reason: str | None = None
        self._llm = llm
        self._ids = itertools.count()
        self.adapters: dict[str, LoRARequest] = {}
        """The loaded adapters by name, as requests name them to vLLM."""
        self._adapter_ids = itertools.count(1)
        self._processes: list[Any] = list(llm.engine_core.resources.engine_manager.processes)
        self._watched: list[int] = []
        self._obituary: asyncio.Task[None] | None = None
        self._open = asyncio.Event()
        """Clear while weights are replaced: requests wait before they reach the engine."""
        self._open.set()
        self._holder: asyncio.Task[Any] | None = None
        """The task that replaces the weights; its own requests pass."""
        self._inside = 0
        """Calls that have passed the gate and not ended."""

    @property
    def client(self) -> Any:
        """vLLM's own engine client, for `openai_serving` alone."""
        return self._llm

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    @property
    def max_model_len(self) -> int:
        return int(self._llm.model_config.max_model_len)

    @property
    def kv_tokens(self) -> int:
        cache = self._llm.vllm_config.cache_config
        return int((cache.num_gpu_blocks or 0) * cache.block_size)

    @property
    def unfinished(self) -> int:
        return int(self._llm.get_num_unfinished_requests())

    @property
    def causal(self) -> bool:
        config = self._llm.model_config
        pooling = (config.pooler_config.seq_pooling_type, config.pooler_config.tok_pooling_type)
        return bool(config.attn_type == "decoder" and pooling == ("LAST", "ALL"))

    # -- life ---------------------------------------------------------------------------------------------------------

    def attach(self, on_death: Callable[[str], None]) -> None:
        self._llm._run_output_handler()
        loop = asyncio.get_running_loop()
        for process in self._processes:
            loop.add_reader(process.sentinel, self._ended, process, on_death)
            self._watched.append(process.sentinel)

    def _ended(self, process: Any, on_death: Callable[[str], None]) -> None:
        self._unwatch()
        self._obituary = asyncio.create_task(self._died(process, on_death))

    async def _died(self, process: Any, on_death: Callable[[str], None]) -> None:
        # The pipe closes before the exit code is there, and a thread of vLLM's may be the one that fetches it.
        for _ in range(EXIT_CODE_LOOKS):
            if process.exitcode is not None:
                break
            await asyncio.sleep(LOOK_EVERY)
        reason = f"the {self.launch.role} engine's process {process.pid} ended with code {process.exitcode}"
        self.give_up(reason)
        on_death(reason)

    def give_up(self, reason: str) -> None:
        self.dead_reason = self.dead_reason or reason
        self._llm.engine_core.resources.engine_dead = True
        self._llm.output_processor.propagate_error(EngineDeadError())

    def _unwatch(self) -> None:
        loop = asyncio.get_running_loop()
        for sentinel in self._watched:
            loop.remove_reader(sentinel)
        self._watched.clear()

    async def close(self) -> None:
        # First let nobody take the end for a failure: neither our watch nor vLLM's own.
        self._unwatch()
        if self._obituary is not None:
            self._obituary.cancel()
        self.dead_reason = self.dead_reason or f"the {self.launch.role} engine was closed"
        if self._llm.output_handler is not None:
            self._llm.output_handler.cancel()
        # Then fail whoever still waits, and end the processes. They hold nothing that needs saving.
        self._llm.output_processor.propagate_error(EngineDeadError())
        await asyncio.to_thread(self.kill)
        # Last the sockets, which vLLM closes by a callback of the loop.
        await asyncio.sleep(0)
        await asyncio.wait_for(
            asyncio.to_thread(self._llm.engine_core.resources.ctx.destroy, 0), CLOSE_SECONDS
        )

    def kill(self) -> None:
        self._llm.engine_core.resources.engine_manager.manager_stopped.set()
        for process in self._processes:
            if process.is_alive():
                process.terminate()
        self._llm.shutdown(timeout=1.0)
        self._llm.shutdown = _nothing  # or its destructor calls it again, at the interpreter's end in vain

    # -- weights ------------------------------------------------------------------------------------------------------

    def shut(self) -> None:
        self._holder = asyncio.current_task()
        self._open.clear()

    def reopen(self) -> None:
        self._holder = None
        self._open.set()

    @property
    def held(self) -> bool:
        return not self._open.is_set()

    async def idle(self) -> None:
        while self._inside or self.unfinished:
            if self.dead_reason:
                raise EngineDead(self.dead_reason)
            await asyncio.sleep(LOOK_EVERY)

    async def reload(self, path: Path) -> None:
        # vLLM only warns of tensors that it misses, so the caller checks the files before and what is served after.
        with self.translating():
            try:
                await self._llm.pause_generation(mode="wait", clear_cache=True)
                await self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(path)})
                if self.launch.role == "policy":
                    await self._llm.collective_rpc("renew_tied_output")
                if not await self._llm.reset_prefix_cache():
                    raise EngineError(f"the {self.launch.role} engine did not clear its prefix cache")
                await self._llm.resume_generation()
            except (EngineDeadError, asyncio.CancelledError, EngineError):
                raise
            except Exception as error:  # vLLM passes on what its worker raised, as a bare Exception
                await self._llm.resume_generation()
                raise EngineError(f"the {self.launch.role} engine did not load {path}: {error}") from error

    async def load_value_head(self, path: Path) -> None:
        with self.translating():
            try:
                await self._llm.collective_rpc("load_value_head", args=(str(path),))
            except EngineDeadError:
                raise
            except Exception as error:  # vLLM passes on what its worker raised, as a bare Exception
                raise EngineError(f"the {self.launch.role} engine did not load {path}: {error}") from error

    async def load_adapter(self, name: str, path: Path) -> None:
        adapter = LoRARequest(name, next(self._adapter_ids), str(path))
        await self._on_adapter(self._llm.add_lora(adapter), f"load the adapter {path}")
        self.adapters[name] = adapter

    async def drop_adapter(self, name: str) -> None:
        adapter = self.adapters.pop(name)
        await self._on_adapter(self._llm.remove_lora(adapter.lora_int_id), f"drop the adapter {name}")

    async def _on_adapter(self, work: Awaitable[bool], what: str) -> None:
        with self.translating():
            try:
                await work
            except EngineDeadError:
                raise
            except Exception as error:  # vLLM passes on what its worker raised, as a bare Exception
                raise EngineError(f"the {self.launch.role} engine did not {what}: {error}") from error

    async def reset_prefix_cache(self) -> None:
        with self.translating():
            if not await self._llm.reset_prefix_cache():
                raise RuntimeError(
                    f"the {self.launch.role} engine's prefix cache is in use; wait for its requests"
                )

    # -- requests -----------------------------------------------------------------------------------------------------

    async def generate(self, requests: Sequence[SampleRequest]) -> list[RawSample]:
        outputs = await self._run((one.prompt, _params_of(one), self._adapter_of(one)) for one in requests)
        samples = [_sample(output.outputs[0], output.kv_transfer_params) for output in outputs]
        if self.recording is not None:
            self.recording.samples.append((requests, [len(sample.token_ids) for sample in samples]))
        return samples

    async def classify(self, requests: Iterable[tuple[Sequence[int], bool]]) -> list[list[list[float]]]:
        requests = list(requests)
        tokenwise = self.launch.reading.tokenwise
        with plain_cancellation():
            outputs = await self._run(
                (prompt, _EVERYWHERE if everywhere or tokenwise else _AT_END, None)
                for prompt, everywhere in requests
            )
        if self.recording is not None:
            self.recording.judgements.append(requests)
        logits = (output.outputs.data.tolist() for output in outputs)
        rows = [data if isinstance(data[0], list) else [data] for data in logits]
        return [row if everywhere else row[-1:] for row, (_, everywhere) in zip(rows, requests, strict=True)]

    async def ping(self, token: int) -> None:
        if self.launch.role == "policy":
            with plain_cancellation():
                await self.generate([SampleRequest([token], SampleParams(max_tokens=1, temperature=0.0))])
        else:
            await self.classify([([token], False)])

    def _adapter_of(self, request: SampleRequest) -> LoRARequest | None:
        return None if request.adapter is None else self.adapters[request.adapter]

    async def _run(self, prompts: Iterable[Prompt]) -> list[Any]:
        """Run requests once weights are not being replaced; vLLM's outputs, in order."""
        while not self._open.is_set() and asyncio.current_task() is not self._holder:
            await self._open.wait()
        self._inside += 1
        try:
            return await self._run_inside(prompts)
        finally:
            self._inside -= 1

    async def _run_inside(self, prompts: Iterable[Prompt]) -> list[Any]:
        llm = self._llm
        began = time.monotonic()
        names: list[str] = []
        collectors: list[Any] = []
        outputs: list[Any] = []
        with self.translating():
            try:
                # Send everything first: the engine then has the whole call in one batch.
                for prompt, params, adapter in prompts:
                    names.append(f"r{next(self._ids)}")
                    tokens = {"type": "token", "prompt_token_ids": list(prompt)}
                    collectors.append(await llm.add_request(names[-1], tokens, params, lora_request=adapter))
                # Then collect, in order; what has landed stays in `outputs` if this is cancelled.
                for collector in collectors:
                    outputs.append(collector.get_nowait() or await collector.get())  # noqa: PERF401
                return outputs
            except asyncio.CancelledError:
                outputs += await self._abort(names[len(outputs) :], collectors[len(outputs) :], began)
                raise SampleAborted(sum(map(_generated, outputs))) from None
            except Exception:
                if not self.dead_reason and not llm.errored:
                    await llm.abort(names[len(outputs) :])
                raise

    async def _abort(self, names: Sequence[str], collectors: Sequence[Any], began: float) -> list[Any]:
        """Abort requests sent at `began`, and return what the draws among them had generated.

        The engine's own word (`scheduler`) counts if it comes in time, else what had reached this process. The last
        names may have no collector yet."""
        last: list[Any] = []
        if self.dead_reason:
            return last
        await self._llm.abort(names[len(collectors) :])
        if self.launch.role == "policy":
            with suppress(Exception, asyncio.CancelledError):  # told to end twice, or the engine died
                await self._last_words(collectors, last, began)
        await self._llm.abort(names[len(last) : len(collectors)])
        return last + list(filter(None, map(_taken, collectors[len(last) :])))

    async def _last_words(self, collectors: Sequence[Any], last: list[Any], began: float) -> None:
        """Abort draws and put into `last` what the engine says of each, for as long as it moves."""

        async def listen() -> None:
            await self._llm.engine_core.abort_requests_async([one.request_id for one in collectors])
            for collector in collectors:
                last.append(await collector.get())  # noqa: PERF401

        listening = asyncio.create_task(listen())
        end = time.monotonic() + LAST_WORD_SECONDS
        try:
            while not listening.done() and time.monotonic() < min(
                end, max(began, self.stats.at) + STALLED_SECONDS
            ):
                await asyncio.wait((listening,), timeout=LOOK_EVERY)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    @contextmanager
    def translating(self) -> Iterator[None]:
        """Raise vLLM's errors as ours."""
        if self.dead_reason:
            raise EngineDead(self.dead_reason)
        try:
            yield
        except EngineDeadError as error:
            raise EngineDead(self.dead_reason or f"the {self.launch.role} engine has died") from error
        except RequestRefused:
            raise
        except (VLLMClientError, ValueError) as error:
            message = f"the {self.launch.role} engine refuses the request: {error}"
            raise RequestRefused(message, getattr(error, "parameter", None)) from error


@lru_cache(1024)
def _sampling_params(params: SampleParams) -> SamplingParams:
    """vLLM's parameters, checked once and then only copied."""
    return SamplingParams(
        max_tokens=params.max_tokens,
        temperature=params.temperature,
        top_p=params.top_p,
        top_k=params.top_k,
        logprobs=params.top,
        flat_logprobs=True,
        stop_token_ids=list(params.stop_tokens),
        detokenize=False,
        extra_args={STOP: list(params.stop)} if params.stop else None,
        allowed_token_ids=list(params.allowed) or None,
        ignore_eos=params.ignore_eos,
        output_kind=RequestOutputKind.FINAL_ONLY,
        skip_clone=True,
    )


def _params_of(request: SampleRequest) -> Any:
    shared = _sampling_params(request.params)
    if request.seed is None and request.watch is None and not request.barred:
        return shared
    own = copy(shared)
    if request.seed is not None:
        own.seed = request.seed & (1 << 63) - 1
    if request.watch is not None:
        own.extra_args = {**(shared.extra_args or {}), WATCH: msgspec.to_builtins(request.watch)}
    if request.barred:
        own.extra_args = {**(own.extra_args or {}), BARRED: list(request.barred), BEGUN: request.begun}
    return own


def _nothing(timeout: float | None = None) -> None:
    """Stand in for a shutdown that has been."""


def _sample(completion: Any, sent_along: dict[str, Any] | None) -> RawSample:
    tokens, flat = list(completion.token_ids), completion.logprobs
    logits = (sent_along or {}).get(LOGITS, [])
    abandoned = completion.stop_reason == ABANDONED
    stopped = completion.finish_reason == "stop" and not abandoned
    if len(flat.logprobs) == len(tokens):
        return RawSample(tokens, flat.logprobs, stopped, logits=logits, abandoned=abandoned)
    own = [flat.logprobs[start] for start in flat.start_indices]
    first = slice(flat.start_indices[0] + 1, flat.end_indices[0])
    top = list(zip(flat.token_ids[first], flat.logprobs[first], strict=True))
    return RawSample(tokens, own, stopped, top, logits, abandoned)


def _taken(collector: Any) -> Any:
    """Return what has come for a request, if anything."""
    with suppress(Exception):  # what an engine that died left in its place
        return collector.get_nowait()
    return None


def _generated(output: Any) -> int:
    completions = output.outputs if isinstance(output.outputs, list) else []  # a judgement has no tokens
    return sum(len(completion.token_ids) for completion in completions)
