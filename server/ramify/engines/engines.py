"""The engines of a server: started, watched, closed together. The policy's may be another server's."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import warnings
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    suppress,
)
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from ramify.engines.config import EngineConfig, Serving
from ramify.engines.errors import (
    EngineBusy,
    EngineError,
    EngineHeld,
    EngineStartFailed,
    PolicyUnreachable,
)
from ramify.engines.judges import JudgeModel, Question
from ramify.engines.leases import Leases, require_servable
from ramify.engines.limiter import EngineLimiter
from ramify.engines.measurement import TOLERANCE, Measurement, Text, measure
from ramify.engines.model_folders import ModelFolder, check_cpu, check_value_head, read_model_folder
from ramify.engines.others import (
    LatePolicy,
    connect,
    connect_others,
    load_adapters,
    named_policies,
    require_alike,
)
from ramify.engines.policy import JudgingVllmPolicy, VllmPolicy
from ramify.engines.ports import Engine
from ramify.engines.progress import kv_bytes, phases
from ramify.engines.remote import RemoteForm, RemoteScorer
from ramify.engines.remote_engine import RemoteEngine
from ramify.engines.remote_openai import RemoteOpenAI
from ramify.engines.scoring import Judge, ScorerMaker, read_judges, role_of
from ramify.engines.start import Launch, Role, at_once, build_all, launches
from ramify.engines.tokenizer import Tokenizer
from ramify.engines.vllm import (
    check_parsers,
    engine_environment,
    multiplies_bfloat16,
    on_cpu,
    prepare_vllm,
    serve_openai,
    start_engine,
)
from ramify.engines.warm_up import warm_up
from ramify.search.crowd import Crowd
from ramify.search.protocols import EngineDead, Policy
from ramify.search.records import OWN_POLICY

if TYPE_CHECKING:
    from ramify.engines.vllm.openai_serving import OpenAIServing

IN_ENGINE = 2
"""Sequences handed to an engine, as a multiple of what it runs at once: its own queue never runs dry."""


class Engines:
    """A running policy and scorer. Make one with `await Engines.start(config)`; end it with `close`."""

    def __init__(
        self,
        config: EngineConfig,
        engines: Sequence[Engine],
        tokenizer: Tokenizer,
        judges: Mapping[str, Judge],
        folder: str,
        policy_servers: Mapping[str, RemoteEngine] | None = None,
    ) -> None:
        """tokenizer: the policy's. judges: models and servers that judge, by the scorers' names; a value head is not
        among them. folder: of the engines' sockets and progress; removed by `close`. policy_servers: those that have
        other policies, by the policies' names."""
        self.config = config
        self.tokenizer = tokenizer
        self.dead = asyncio.Event()
        """Set once an engine is gone for good; `dead_reason` says which and how."""
        self.dead_reason: str | None = None
        self.by_role: Mapping[Role, Engine] = {engine.launch.role: engine for engine in engines}
        self._folder = folder
        self._limiters = {
            role: EngineLimiter(_most(role, config), config.options.max_waiting) for role in self.by_role
        }
        self._leases = Leases(config.serving, self.by_role["policy"])
        maker = ScorerMaker(config, self.tokenizer, self.by_role, self._limiters, self._leases.mine)
        self._judge = maker.own(judges)
        """The scorer of what the release itself judges with, if it does."""
        self.scorer = maker.all(judges, self._judge)
        """All that judges; without one of a weight it is the policy's own confidence."""
        self._scorer_servers = [
            one.scorer for one in self.scorer.named.values() if isinstance(one.scorer, RemoteScorer)
        ]
        judging = config.value_head is not None and config.scorer is None and self.scorer.weighing == ("",)
        self.policy = (JudgingVllmPolicy if judging else VllmPolicy)(
            self.by_role["policy"],
            self.tokenizer,
            self._limiters["policy"],
            self._leases.mine,
            config.options.seeded,
        )
        self._policy_servers = dict(policy_servers or {})
        self.others = named_policies(
            config,
            self.by_role["policy"],
            self._policy_servers,
            self._limiters["policy"],
            self._leases.mine,
            self.tokenizer,
        )
        """The policies that searches may name beside it."""
        self.crowd = Crowd(lambda: self.by_role["policy"].stats.step_times.fit)
        """The searches that use the policy."""
        self._plain: OpenAIServing | RemoteOpenAI | None = None
        self._tokenizers: dict[Role, Tokenizer] = {"policy": self.tokenizer}
        self._overhead: dict[Role, int] = {}
        """Tokens of an engine's inputs that are neither prompt nor answer."""
        for name, judge in judges.items():
            if isinstance(judge, RemoteForm):
                continue
            role = "policy" if isinstance(judge, Question) else role_of(name, config.scorers[name])
            self._overhead[role] = max(self._overhead.get(role, 0), judge.overhead)
            if isinstance(judge, JudgeModel):
                self._tokenizers[role] = judge.tokenizer
        for engine in engines:
            engine.attach(self._died)

    @classmethod
    async def start(cls, config: EngineConfig, tell: Callable[[str], None] | None = None) -> Engines:
        """Check the models, then start the engines and wait until they are ready (20 s on a CPU). `tell` hears
        what they are doing.

        Raises `EngineStartFailed`: within a second or two if the files cannot be served, later if a process ends."""
        prepare_vllm(config.options.log_level, config.options.start_timeout, config.options.cache_dir)
        if tell is not None:
            tell("loading vLLM and reading the models")
        async with AsyncExitStack() as undo:
            folder = tempfile.mkdtemp(prefix="ramify-engines-")
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            with warnings.catch_warnings(action="ignore"):  # of vLLM's and torch's own making, dozens of them
                plans, tokenizer, judges = await asyncio.to_thread(_prepare, config)
                engines: list[Engine] = []
                policy_servers = await connect_others(config.others, plans[0], tokenizer)
                for server in policy_servers.values():
                    undo.push_async_callback(server.close)
                if config.server is not None:
                    engines.append(await connect(config.server, plans.pop(0), tokenizer))
                    undo.push_async_callback(engines[0].close)
                for engine in await _start_all(plans, folder, tell):
                    engines.append(engine)
                    undo.push_async_callback(engine.close)
            started = cls(config, engines, tokenizer, judges, folder, policy_servers)
            if started.max_model_len < 2:
                raise EngineStartFailed(
                    "the judge's form leaves no room for an answer: shorten scorer.rubric"
                )
            if config.value_head is not None:
                await started.by_role["policy"].load_value_head(config.value_head)
            try:
                await started._leases.load_served()
            except EngineError as error:
                raise EngineStartFailed(str(error)) from error
            await load_adapters(config.others, started._leases)
            for remote in started._scorer_servers:
                undo.push_async_callback(remote.close)
            for remote in started._scorer_servers:
                some = started.tokenizer.encode("1 + 1 =")
                await remote.check(some, started.tokenizer.encode_continuation(" 2"))
            await started._warm_up()
            undo.pop_all()
        return started

    async def _warm_up(self) -> None:
        """Draw a little from the policy, unless it is another server's. Raises `EngineStartFailed`."""
        policy = self.by_role["policy"]
        if policy.elsewhere:
            return
        try:
            await warm_up(policy, self.tokenizer.a_token, self.serving.adapter)
        except (EngineError, EngineDead) as error:
            raise EngineStartFailed(str(error)) from error

    @property
    def serving(self) -> Serving:
        """The release that is offered. Assigned anew when another is activated: whole weights inside `exclusive`, an
        adapter inside `trying`."""
        return self._leases.serving

    @serving.setter
    def serving(self, serving: Serving) -> None:
        self._leases.serve(serving)

    def lease(self) -> AbstractContextManager[Serving]:
        """Have all that the calling task asks of policy and scorers be answered by the release served now, for as long
        as the block runs, whichever is served then. Whole weights are not put in others' place under a lease: the
        caller waits for its end."""
        return self._leases.lease()

    def trying(self, serving: Serving) -> AbstractAsyncContextManager[None]:
        """Lease a release that is not served yet, its adapter loaded first if it is one; its whole weights must be in
        the engines. Raises `EngineError` if the adapter cannot be loaded."""
        return self._leases.trying(serving)

    @property
    def plain(self) -> OpenAIServing | RemoteOpenAI:
        """The policy alone, in OpenAI's shapes; made at its first use, which takes a quarter of a second."""
        if self._plain is None:
            policy, limiter = self.by_role["policy"], self._limiters["policy"]
            if isinstance(policy, RemoteEngine):
                self._plain = RemoteOpenAI(policy, limiter)
            else:
                self._plain = serve_openai(policy, limiter, lambda: self._leases.mine().adapter)
        return self._plain

    @property
    def policies(self) -> Mapping[str, Policy]:
        """The policies that a search may name: the one served, and others."""
        return {OWN_POLICY: self.policy, **{name: other.policy for name, other in self.others.items()}}

    @property
    def eos_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return self.tokenizer.eos_ids

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and answer together that both models take, beside what a judge's form adds."""
        return min(
            engine.max_model_len - self._overhead.get(role, 0) for role, engine in self.by_role.items()
        )

    @property
    def pids(self) -> list[int]:
        """Process ids of the engines."""
        return [pid for engine in self.by_role.values() for pid in engine.pids]

    def stats(self) -> Mapping[str, float]:
        """Figures of each engine by name: `policy_running`, `policy_waiting` (sequences, ours and the engine's queue
        together), `policy_kv_usage` (share of the KV cache, [0, 1]), `policy_steps`, and the same for `value`."""
        figures: dict[str, float] = {}
        for role, engine in self.by_role.items():
            busy = engine.unfinished > 0
            queued = self._limiters[role].waiting
            running = min(engine.stats.running, engine.unfinished)
            figures[f"{role}_running"] = running
            figures[f"{role}_waiting"] = queued + engine.unfinished - running
            figures[f"{role}_kv_usage"] = engine.stats.kv_usage if busy else 0.0
            figures[f"{role}_steps"] = engine.stats.steps
        return figures

    def memory(self) -> list[str]:
        """Return a line on each engine's memory: size of the weights' files, room of the KV cache, and main memory of
        the engine's processes (on a CPU the KV cache is in it as far as it has been used)."""
        return [self._memory(engine) for engine in self.by_role.values()]

    def _memory(self, engine: Engine) -> str:
        if isinstance(engine, RemoteEngine):
            return f"{engine.launch.role}: {engine.served} at {engine.server.place}, on another server"
        resident = 0
        for pid in engine.pids:
            with suppress(psutil.Error):
                resident += psutil.Process(pid).memory_info().rss
        role = engine.launch.role
        weights = sum(file.stat().st_size for file in engine.launch.path.glob("*.safetensors"))
        kv = kv_bytes(Path(self._folder), role)
        room = f"{engine.kv_tokens:,} tokens" + (f" ({_mebibytes(kv)})" if kv else "")
        return f"{role}: weights {_mebibytes(weights)}, KV cache {room}, resident {_mebibytes(resident)}"

    async def probe(self, deadline: float) -> None:
        """Make sure that both engines move: one small request each, or any step of theirs, within `deadline` seconds.

        A probe behind a long queue is answered by the progress of the queue. Raises `TimeoutError`
        (`EngineHeld` if weights were being replaced) or `EngineDead`."""
        await asyncio.gather(*(self._probe(engine, deadline) for engine in self.by_role.values()))

    async def _probe(self, engine: Engine, deadline: float) -> None:
        steps, held = engine.stats.steps, engine.held
        try:
            async with asyncio.timeout(deadline):
                await engine.ping(self._tokenizers[engine.launch.role].a_token)
        except TimeoutError:
            if engine.stats.steps == steps:
                held = held or engine.held
                kind = EngineHeld if held else PolicyUnreachable if engine.elsewhere else TimeoutError
                raise kind(f"the {engine.launch.role} engine made no step within {deadline:g} s") from None

    @asynccontextmanager
    async def exclusive(self, seconds: float) -> AsyncIterator[None]:
        """Hold everybody's requests except this task's for as long as the block runs.

        The block is entered once requests under way have ended. Raises `EngineBusy` if that takes longer than
        `seconds`, and `EngineDead`."""
        engines = self.by_role.values()
        try:
            for engine in engines:
                engine.shut()
            try:
                async with asyncio.timeout(seconds):
                    for engine in engines:
                        await engine.idle()
            except TimeoutError:
                raise EngineBusy(f"the engines were not idle after {seconds:g} s") from None
            yield
        finally:
            for engine in engines:
                engine.reopen()

    async def reload(self, policy: Path, value: Path | None, value_head: Path | None = None) -> None:
        """Put other weights of the same network and tokenizer into the engines and forget every cached prefix.

        policy, value, value_head: as in `EngineConfig`, and of the same kinds as what was started. Only inside
        `exclusive`, so that each request is served by one release; `serving` stays as it is. Raises `EngineError`,
        after which the engines may hold anything: load a release that is known to be good. Raises `EngineDead`.
        Cancelled, it leaves them in the same doubt."""
        paths: dict[Role, Path] = {"policy": policy}
        if all(options.kind is not None for options in self.config.scorers.values()):
            await self.by_role["policy"].reload(policy)  # what judges stays, whatever the release judges with
            return
        if value is not None:
            paths["value"] = value
        held = self.by_role.keys() & {"policy", "value"}
        if paths.keys() != held or (value_head is None) != (self.config.value_head is None):
            raise EngineError(
                f"{policy} and what is served are not judged alike: by a model, a head or nothing"
            )
        if value_head is not None:
            check_value_head(value_head, read_model_folder(policy, "policy"))
        for role, path in paths.items():
            await self.by_role[role].reload(path)
        if value_head is not None:
            await self.by_role["policy"].load_value_head(value_head)

    @property
    def tolerance(self) -> float:
        """Largest difference between two computations of the same log-probability or value, relative to the figure if
        it is above 1; it follows from the precision that the engines compute in."""
        return max(TOLERANCE[engine.launch.dtype] for engine in self.by_role.values())

    async def measure(self, texts: Sequence[Text], calibration: tuple[float, float]) -> list[Measurement]:
        """The figures of texts under the release that the calling task leases and a calibration of the values, through
        the prefix cache as searches go; see `measurement`."""
        return await measure(
            self.by_role["policy"],
            self._judge,
            texts,
            calibration,
            self.tokenizer.text.size,
            self._leases.mine().adapter,
        )

    def give_up(self, reason: str) -> None:
        """Count the engines as dead, those who wait for them included: what they hold is unknown."""
        for engine in self.by_role.values():
            engine.give_up(reason)
        self._died(reason)

    async def reset_prefix_caches(self) -> None:
        """Forget every cached prefix of both engines; no request may be running."""
        await asyncio.gather(*(engine.reset_prefix_cache() for engine in self.by_role.values()))

    async def close(self) -> None:
        """End both engines and their processes."""
        policies = (one.policy for one in self.others.values())
        await asyncio.gather(*(one.close() for one in policies if isinstance(one, LatePolicy)))
        engines = (*self.by_role.values(), *self._policy_servers.values())
        await asyncio.gather(*(engine.close() for engine in engines))
        for remote in self._scorer_servers:
            await remote.close()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def __aenter__(self) -> Engines:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def _died(self, reason: str) -> None:
        self.dead_reason = self.dead_reason or reason
        self.dead.set()


def _most(role: Role, config: EngineConfig) -> int:
    """Return how many sequences are handed to an engine at once."""
    if role == "policy" and config.server is not None:
        return config.server.parallel
    return IN_ENGINE * config.options.max_num_seqs


async def _start_all(
    plans: Sequence[Launch], folder: str, tell: Callable[[str], None] | None
) -> Sequence[Engine]:
    """Start the engines at home, if there are any."""
    if not plans:
        return []
    roles = [plan.role for plan in plans]

    def look() -> None:
        if tell is not None:
            tell(phases(Path(folder), roles))

    with engine_environment(plans[0].threads, folder):
        return await build_all(plans, at_once(plans, cpu=plans[0].cpu), start_engine, look)


def _prepare(config: EngineConfig) -> tuple[list[Launch], Tokenizer, Mapping[str, Judge]]:
    """Check the models, the quickest checks first, and return what each engine is started with, the policy's tokenizer,
    and what judges, by the scorers' names."""
    policy = _checked_policy(config)
    tokenizer = Tokenizer(config.policy)
    judges = read_judges(config, tokenizer)
    models = {
        role_of(name, config.scorers[name]): (judge.folder, judge.reading)
        for name, judge in judges.items()
        if isinstance(judge, JudgeModel)
    }
    at_home = [] if config.server is not None else [policy]
    at_home += [folder for folder, _ in models.values()]
    if not at_home:  # vLLM, which takes seconds to import, is not needed
        return launches(config, policy, {}, cpu=False), tokenizer, judges
    cpu = on_cpu()
    check_parsers(config.options.tool_parser, config.options.reasoning_parser, tokenizer.hf)
    for folder in at_home if cpu else ():
        check_cpu(folder)
    plans = launches(config, policy, models, cpu=cpu, bfloat16=multiplies_bfloat16())
    return plans, tokenizer, judges


def _checked_policy(config: EngineConfig) -> ModelFolder:
    policy = read_model_folder(config.policy, "policy", weights=config.server is None)
    if config.serving.source is not None:
        try:
            require_servable(config.serving.source, config.options)
        except EngineError as error:
            raise EngineStartFailed(str(error)) from error
    require_alike(config)
    if config.value_head is not None:
        if config.value is not None:
            raise EngineStartFailed("a value model and a value head: one of them is needed, not both")
        check_value_head(config.value_head, policy)
    return policy


def _mebibytes(count: int) -> str:
    return f"{count / (1 << 20):,.0f} MiB"
