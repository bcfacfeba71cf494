"""The policies that searches may name beside the one served: adapters, other servers, other words around a prompt.

Each is a `VllmPolicy` on one engine. Those with an engine of their own, on another server, have a limiter of their own
too. Each must be reachable when the server starts, which checks its tokenizer; one that goes away later ends neither
the server nor a search, but its part in it. None of them judges what it writes:
the served policy's head is trained on its own trunk and the request's own prompt, so the scorer is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ramify.engine_options import OtherPolicyOptions, PolicyServerOptions
from ramify.engines.config import EngineConfig, OtherPolicy, Serving
from ramify.engines.errors import EngineError, EngineStartFailed
from ramify.engines.leases import Leases, require_servable
from ramify.engines.limiter import EngineLimiter
from ramify.engines.policy import VllmPolicy
from ramify.engines.policy_server import PolicyServer
from ramify.engines.ports import Engine
from ramify.engines.remote_engine import RemoteEngine
from ramify.engines.start import Launch
from ramify.engines.tokenizer import Tokenizer
from ramify.search.protocols import Policy


@dataclass(frozen=True, slots=True)
class NamedPolicy:
    """A policy that searches may name, ready to draw."""

    policy: Policy
    options: OtherPolicyOptions
    """Its table of the settings, with the words that it puts around a prompt."""
    release: str | None = None
    """Release, or model of another server, that it draws with; `None`: the release served."""
    longest: int | None = None
    """Tokens of prompt and answer together that it takes, if it is on another server; `None`: as many as the policy
    served."""


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


async def connect_other(
    name: str, other: OtherPolicy, launch: Launch, tokenizer: Tokenizer
) -> RemoteEngine | None:
    """Connect to the server that has a policy, if one has it. Raises `EngineStartFailed`."""
    if other.options.url is None:
        return None
    launch = replace(launch, role=f"policy_{name}")
    return await connect(other.options, launch, tokenizer, f"policies.{name}")


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
    remotes: Mapping[str, RemoteEngine],
    limiter: EngineLimiter,
    mine: Callable[[], Serving],
    tokenizer: Tokenizer,
) -> dict[str, NamedPolicy]:
    """Return the other policies by name. home, limiter: the engine of the policy served, and what stands before it.
    mine: the release that a task leases."""

    def made(name: str, other: OtherPolicy) -> NamedPolicy:
        engine, before, serving = home, limiter, mine
        remote = remotes.get(name)
        if remote is not None:
            there = Serving(name, remote.served, remote=True)
            engine, serving = remote, lambda: there
            before = EngineLimiter(other.options.parallel, config.options.max_waiting)
        elif other.release is not None:
            adapted = _serving(name, other)
            serving = lambda: adapted  # noqa: E731  (a name of its own would say no more)
        policy = VllmPolicy(engine, tokenizer, before, serving, config.options.seeded)
        if serving is mine:
            return NamedPolicy(policy, other.options)
        longest = remote.max_model_len if remote is not None else None
        return NamedPolicy(policy, other.options, serving().release, longest)

    return {name: made(name, other) for name, other in config.others.items()}
