"""The policies that searches may name beside the one served: adapters, other servers, other words around a prompt.

Each is a `VllmPolicy` on one engine. Those with an engine of their own, on another server, have a limiter of their own
too, and their tokenizers are checked: at the start, or, of a server that is away then, by the first search that finds
it there. One that is away ends neither the server nor a search, but its part in it. None of them judges what it writes:
the served policy's head is trained on its own trunk and the request's own prompt, so the scorer is asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ramify.engine_options import OtherPolicyOptions, PolicyServerOptions
from ramify.engines.config import EngineConfig, OtherPolicy, Serving
from ramify.engines.errors import EngineError, EngineStartFailed, PolicyUnreachable
from ramify.engines.leases import Leases, require_servable
from ramify.engines.limiter import EngineLimiter
from ramify.engines.policy import VllmPolicy
from ramify.engines.policy_server import PolicyServer
from ramify.engines.ports import Engine
from ramify.engines.remote_engine import RemoteEngine
from ramify.engines.start import Launch
from ramify.engines.tokenizer import Tokenizer
from ramify.races import all_of, cancel
from ramify.search.protocols import Policy, SampleAborted
from ramify.search.records import Continuation, Sampling

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NamedPolicy:
    """A policy that searches may name, ready to draw."""

    policy: Policy
    options: OtherPolicyOptions
    """Its table of the settings, with the words that it puts around a prompt."""
    release: str | None = None
    """Release, or model of another server, that it draws with; `None`: the release served, or not known yet."""
    longest: int | None = None
    """Tokens of prompt and answer together that it takes, if it is on another server; `None`: as many as the policy
    served."""


class LatePolicy:
    """A policy whose server was away at the start. Draws connect to it, together; once that has worked, the policy that
    `join` gave draws."""

    def __init__(self, join: Callable[[], Awaitable[Policy]]) -> None:
        """join: connects and checks. Raises `EngineError` or `PolicyUnreachable`."""
        self._join = join
        self._joining: asyncio.Task[Policy] | None = None

    async def sample(
        self, prefix: Sequence[int], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Continuation]:
        """Draw a continuation for each seed. Raises as `Policy.sample` does."""
        try:
            policy = await self._joined()
        except asyncio.CancelledError:
            raise SampleAborted(0) from None
        return await policy.sample(prefix, sampling, seeds)

    async def next_tokens(self, prefix: Sequence[int], k: int, temperature: float) -> list[Continuation]:
        """Return the likeliest next tokens. Raises as `Policy.next_tokens` does."""
        return await (await self._joined()).next_tokens(prefix, k, temperature)

    async def close(self) -> None:
        """Give up connecting, if that is under way."""
        if self._joining is not None:
            await cancel(self._joining)

    async def _joined(self) -> Policy:
        task = self._joining
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._joining = asyncio.ensure_future(self._join())
            # Nobody may wait for its end any more.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)


def require_alike(config: EngineConfig) -> None:
    """Raise `EngineStartFailed` if an adapter among the other policies cannot be held."""
    for name, other in config.others.items():
        if other.release is not None:
            try:
                require_servable(other.release, config.options)
            except EngineError as error:
                raise EngineStartFailed(f"policies.{name}.release: {error}") from error


async def connect(
    options: PolicyServerOptions, launch: Launch, tokenizer: Tokenizer, setting: str = "policy_server"
) -> RemoteEngine:
    """Connect to the server that has a policy. setting: the table of its options. Raises `EngineStartFailed`."""
    server = PolicyServer(options, setting)
    try:
        return await RemoteEngine.connect(launch, server, tokenizer, options, setting)
    except BaseException:
        await server.close()
        raise


async def connect_other(name: str, other: OtherPolicy, launch: Launch, tokenizer: Tokenizer) -> RemoteEngine:
    """Connect to the server that has a policy. Raises `PolicyUnreachable` if it is away, `EngineStartFailed` if it
    cannot be used."""
    try:
        return await connect(
            other.options, replace(launch, role=f"policy_{name}"), tokenizer, f"policies.{name}"
        )
    except EngineStartFailed as error:
        if not isinstance(error.__cause__, PolicyUnreachable):
            raise
        raise PolicyUnreachable(str(error)) from error


async def connect_others(
    others: Mapping[str, OtherPolicy], launch: Launch, tokenizer: Tokenizer
) -> dict[str, RemoteEngine]:
    """Connect to the servers that have the other policies, side by side, as far as they are there. Raises
    `EngineStartFailed` for one that cannot be used."""
    found: dict[str, RemoteEngine] = {}

    async def find(name: str, other: OtherPolicy) -> None:
        try:
            found[name] = await connect_other(name, other, launch, tokenizer)
        except PolicyUnreachable as error:
            logger.warning("the policy %s is away; searches that name it ask again: %s", name, error)

    try:
        await all_of(find(name, other) for name, other in others.items() if other.options.url is not None)
    except BaseException:
        await asyncio.gather(*(one.close() for one in found.values()))
        raise
    return found


async def load_adapters(others: Mapping[str, OtherPolicy], leases: Leases) -> None:
    """Load the adapters among the other policies, for as long as the engine runs. Raises `EngineStartFailed`."""
    for name, other in others.items():
        if other.release is not None:
            try:
                await leases.keep(_serving(name, other))
            except EngineError as error:
                raise EngineStartFailed(f"policies.{name}.release: {error}") from error


def _serving(name: str, other: OtherPolicy) -> Serving:
    assert other.release is not None
    return Serving(name, other.release.id, source=other.release)


def named_policies(
    config: EngineConfig,
    home: Engine,
    remotes: dict[str, RemoteEngine],
    limiter: EngineLimiter,
    mine: Callable[[], Serving],
    tokenizer: Tokenizer,
) -> dict[str, NamedPolicy]:
    """Return the other policies by name. home, limiter: the engine of the policy served, and what stands before it.
    remotes: the servers that were there at the start; those that come later are added, and their policies replaced.
    mine: the release that a task leases."""
    named: dict[str, NamedPolicy] = {}

    def at_home(name: str, other: OtherPolicy) -> NamedPolicy:
        if other.release is None:
            policy = VllmPolicy(home, tokenizer, limiter, mine, config.options.seeded)
            return NamedPolicy(policy, other.options)
        adapted = _serving(name, other)
        policy = VllmPolicy(home, tokenizer, limiter, lambda: adapted, config.options.seeded)
        return NamedPolicy(policy, other.options, adapted.release)

    def remote(name: str, other: OtherPolicy, engine: RemoteEngine) -> NamedPolicy:
        there = Serving(name, engine.served, remote=True)
        before = EngineLimiter(other.options.parallel, config.options.max_waiting)
        policy = VllmPolicy(engine, tokenizer, before, lambda: there, config.options.seeded)
        return NamedPolicy(policy, other.options, engine.served, engine.max_model_len)

    def late(name: str, other: OtherPolicy) -> NamedPolicy:
        async def join() -> Policy:
            remotes[name] = await connect_other(name, other, home.launch, tokenizer)
            named[name] = remote(name, other, remotes[name])
            return named[name].policy

        return NamedPolicy(LatePolicy(join), other.options)

    for name, other in config.others.items():
        if other.options.url is None:
            named[name] = at_home(name, other)
        else:
            named[name] = remote(name, other, remotes[name]) if name in remotes else late(name, other)
    return named
