"""Both engines of a server: started, watched, closed together."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import warnings
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from ramify.engines.checkpoints import Checkpoint, check_cpu, read_checkpoint
from ramify.engines.config import EngineConfig
from ramify.engines.errors import EngineBusy, EngineHeld, EngineStuck, ReloadFailed
from ramify.engines.limiter import EngineLimiter
from ramify.engines.measurement import TOLERANCE, Measurement, Text, measure
from ramify.engines.policy import VllmPolicy
from ramify.engines.progress import kv_bytes, phases
from ramify.engines.recording import EngineRequest, Recorder, Replay
from ramify.engines.replay import replay
from ramify.engines.scorer import NoScorer, VllmScorer
from ramify.engines.start import Launch, at_once, build_all, launches
from ramify.engines.tokenizer import Tokenizer
from ramify.engines.vllm import engine_environment, prepare_vllm

if TYPE_CHECKING:
    from ramify.engines.vllm.engine import Backend
    from ramify.engines.vllm.openai_serving import OpenAIServing

IN_ENGINE = 2
"""Sequences handed to an engine, as a multiple of what it runs at once: its own queue never runs dry."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory that one engine holds, in bytes."""

    role: str
    weights: int
    """Size of the checkpoint's files."""
    kv: int | None
    """Size of the KV cache; `None`: unknown."""
    kv_tokens: int
    """Tokens that the KV cache has room for."""
    resident: int
    """Main memory of the engine's process, the KV cache in it on a CPU as far as it has been used."""

    def __str__(self) -> str:
        room = f"{self.kv_tokens:,} tokens" + (f" ({_mebibytes(self.kv)})" if self.kv else "")
        return f"{self.role}: weights {_mebibytes(self.weights)}, KV cache {room}, resident {_mebibytes(self.resident)}"


def _mebibytes(count: int) -> str:
    return f"{count / (1 << 20):,.0f} MiB"


@dataclass(frozen=True, slots=True)
class _Models:
    """All that is known of the models before the engines start."""

    policy: Checkpoint
    value: Checkpoint | None
    tokenizer: Tokenizer
    value_tokenizer: Tokenizer | None
    """Only where it differs from the policy's."""


class Engines:
    """A running policy and scorer. Make one with `await Engines.start(config)`; end it with `close`."""

    def __init__(
        self, config: EngineConfig, prepared: _Models, backends: Sequence[Backend], folder: str
    ) -> None:
        self.config = config
        self.serving = config.serving
        """Assigned anew when another release is activated, inside `exclusive`; policy and scorer read it."""
        self.tokenizer = prepared.tokenizer
        self.dead = asyncio.Event()
        """Set once an engine is gone for good; `dead_reason` says which and how."""
        self.dead_reason: str | None = None
        self.recorder = Recorder()
        self._backends = {backend.launch.role: backend for backend in backends}
        self._folder = folder
        self._slots = {
            role: EngineLimiter(IN_ENGINE * config.max_num_seqs, config.max_waiting)
            for role in self._backends
        }
        self.policy = VllmPolicy(
            self._backends["policy"],
            self.tokenizer,
            self._slots["policy"],
            self.recorder,
            lambda: self.serving,
            config.seeded,
        )
        self.scorer: VllmScorer | NoScorer = NoScorer()
        if "value" in self._backends:
            self.scorer = VllmScorer(
                self._backends["value"],
                self._slots["value"],
                self.recorder,
                lambda: self.serving,
                _translation(prepared),
            )
        self._plain: OpenAIServing | None = None
        for backend in backends:
            backend.attach(self._died)

    @classmethod
    async def start(cls, config: EngineConfig, tell: Callable[[str], None] | None = None) -> Engines:
        """Check the models, then start the engines and wait until they are ready (20 s on a CPU). `tell` hears
        what they are doing.

        Raises `BadModel` within a second or two where the files cannot be served, `EngineStartFailed` later."""
        prepare_vllm(config.log_level, config.start_timeout, config.cache_dir)
        if tell is not None:
            tell("loading vLLM and reading the models")
        folder = tempfile.mkdtemp(prefix="ramify-engines-")
        try:
            with warnings.catch_warnings(action="ignore"):  # of vLLM's and torch's own making, dozens of them
                prepared = await asyncio.to_thread(_prepare, config)
                plans = await asyncio.to_thread(_plan, config, prepared)
                roles = [plan.role for plan in plans]

                def look() -> None:
                    if tell is not None:
                        tell(phases(Path(folder), roles))

                with engine_environment(plans[0].threads, folder):
                    backends = await build_all(plans, at_once(plans, cpu=plans[0].cpu), look=look)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return cls(config, prepared, backends, folder)

    @property
    def plain(self) -> OpenAIServing:
        """The policy alone, in OpenAI's shapes; made at its first use, which takes a quarter of a second."""
        if self._plain is None:
            from ramify.engines.vllm.openai_serving import OpenAIServing

            self._plain = OpenAIServing(self._backends["policy"], self._slots["policy"])
        return self._plain

    @property
    def eos_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return self.tokenizer.eos_ids

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and answer together that both models take."""
        return min(backend.max_model_len for backend in self._backends.values())

    @property
    def pids(self) -> list[int]:
        """Process ids of the engines."""
        return [pid for backend in self._backends.values() for pid in backend.pids]

    def stats(self) -> Mapping[str, float]:
        """Figures of each engine by name: `policy_running`, `policy_waiting` (sequences, ours and the engine's queue
        together), `policy_kv_usage` (share of the KV cache, [0, 1]), `policy_steps`, and the same for `value`."""
        figures: dict[str, float] = {}
        for role, backend in self._backends.items():
            busy = backend.unfinished > 0
            queued = self._slots[role].waiting
            running = min(backend.stats.running, backend.unfinished)
            figures[f"{role}_running"] = running
            figures[f"{role}_waiting"] = queued + backend.unfinished - running
            figures[f"{role}_kv_usage"] = backend.stats.kv_usage if busy else 0.0
            figures[f"{role}_steps"] = backend.stats.steps
        return figures

    def memory(self) -> list[Memory]:
        """Each engine's memory."""
        return [self._memory(backend) for backend in self._backends.values()]

    def _memory(self, backend: Backend) -> Memory:
        resident = 0
        for pid in backend.pids:
            with suppress(psutil.Error):
                resident += psutil.Process(pid).memory_info().rss
        role = backend.launch.role
        weights = sum(file.stat().st_size for file in backend.launch.path.glob("*.safetensors"))
        return Memory(role, weights, kv_bytes(Path(self._folder), role), backend.kv_tokens, resident)

    async def probe(self, deadline: float) -> None:
        """Make sure that both engines move: one small request each, or any step of theirs, within `deadline` seconds.

        A probe behind a long queue is answered by the progress of the queue. Raises `EngineStuck` or `EngineDead`."""
        await asyncio.gather(*(self._probe(backend, deadline) for backend in self._backends.values()))

    async def _probe(self, backend: Backend, deadline: float) -> None:
        steps, held = backend.stats.steps, backend.held
        try:
            async with asyncio.timeout(deadline):
                await backend.ping(self.tokenizer.a_token)
        except TimeoutError:
            if backend.stats.steps == steps:
                kind = EngineHeld if held or backend.held else EngineStuck
                raise kind(f"the {backend.launch.role} engine made no step within {deadline:g} s") from None

    @asynccontextmanager
    async def exclusive(self, seconds: float) -> AsyncIterator[None]:
        """For as long as the block runs, only requests of this very task reach the engines; all others wait.

        Entered once what was under way has ended. Raises `EngineBusy` where that takes longer than `seconds`, and
        `EngineDead`."""
        backends = self._backends.values()
        try:
            for backend in backends:
                backend.shut()
            try:
                async with asyncio.timeout(seconds):
                    for backend in backends:
                        await backend.idle()
            except TimeoutError:
                raise EngineBusy(f"the engines were not idle after {seconds:g} s") from None
            yield
        finally:
            for backend in backends:
                backend.reopen()

    async def reload(self, policy: Path, value: Path | None) -> None:
        """Put other weights of the same network and tokenizer into both engines and forget every cached prefix.

        Only inside `exclusive`, so that each request is served by one release; `serving` stays as it is. Raises
        `ReloadFailed`, after which the engines may hold anything: load a release that is known to be good. Raises
        `EngineDead`. Cancelled, it leaves them in the same doubt."""
        paths = {"policy": policy} | ({"value": value} if value is not None else {})
        if paths.keys() != self._backends.keys():
            raise ReloadFailed(f"{policy} and what is served do not both have a value model")
        for role, backend in self._backends.items():
            await backend.reload(paths[role])

    @property
    def tolerance(self) -> float:
        """How far two computations of the same log-probability or value may lie apart here, relative to what is
        compared where that is above 1: by the precision that the engines compute in."""
        return max(TOLERANCE[backend.launch.dtype] for backend in self._backends.values())

    async def measure(self, texts: Sequence[Text], calibration: tuple[float, float]) -> list[Measurement]:
        """The figures of texts under the weights that are loaded and a calibration of the values, through the prefix
        cache as searches go; see `measurement`."""
        scorer = self.scorer if isinstance(self.scorer, VllmScorer) else None
        return await measure(self._backends["policy"], scorer, texts, calibration, self.tokenizer.text.size)

    def give_up(self, reason: str) -> None:
        """Count the engines as dead, those who wait for them included: what they hold is unknown."""
        for backend in self._backends.values():
            backend.give_up(reason)
        self._died(reason)

    async def reset_prefix_caches(self) -> None:
        """Forget every cached prefix of both engines; no request may be running."""
        await asyncio.gather(*(backend.reset_prefix_cache() for backend in self._backends.values()))

    async def replay(self, requests: Sequence[EngineRequest]) -> Replay:
        """Send recorded requests straight to the engines, all at once, their lengths fixed to those recorded."""
        return await replay(requests, self._backends["policy"], self._backends.get("value"))

    async def close(self) -> None:
        """End both engines and their processes."""
        await asyncio.gather(*(backend.close() for backend in self._backends.values()))
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def __aenter__(self) -> Engines:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def _died(self, reason: str) -> None:
        self.dead_reason = self.dead_reason or reason
        self.dead.set()


def _prepare(config: EngineConfig) -> _Models:
    policy = read_checkpoint(config.policy, "policy")
    value = read_checkpoint(config.value, "value model") if config.value else None
    tokenizer = Tokenizer(config.policy)
    other = Tokenizer(config.value) if config.value else None
    return _Models(policy, value, tokenizer, other if other and not tokenizer.same_as(other) else None)


def _plan(config: EngineConfig, prepared: _Models) -> list[Launch]:
    from ramify.engines.vllm.starting import on_cpu

    cpu = on_cpu()
    if config.tool_parser is not None or config.reasoning_parser is not None:
        from ramify.engines.vllm.openai_serving import check_parsers

        check_parsers(config.tool_parser, config.reasoning_parser, prepared.tokenizer._hf)
    if cpu:
        for checkpoint in filter(None, (prepared.policy, prepared.value)):
            check_cpu(checkpoint)
    return launches(config, prepared.policy, prepared.value, cpu)


def _translation(prepared: _Models) -> Any:
    other = prepared.value_tokenizer
    if other is None:
        return None
    return lambda tokens: other.encode(prepared.tokenizer.decode(tokens))
