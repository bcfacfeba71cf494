"""One running engine, as everything but `vllm/` sees it: token ids in, plain values out.

`vllm.engine.VllmEngine` is one that runs here, `remote_engine.RemoteEngine` a policy on another server; tests have
fakes of the parts that they need.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ramify.search.crowd import StepTimes
from ramify.search.protocols import SampleAborted
from ramify.search.records import Action, Hurdle

if TYPE_CHECKING:
    from ramify.engines.start import Launch


@dataclass(slots=True)
class EngineStats:
    """The newest figures that an engine reported of itself."""

    steps: int = 0
    """Engine steps since its start."""
    at: float = 0.0
    """`time.monotonic()` of the last step."""
    running: int = 0
    """Sequences in the running batch."""
    waiting: int = 0
    """Sequences in the engine's own queue."""
    kv_usage: float = 0.0
    """Share of the KV cache in use, [0, 1]."""
    step_times: StepTimes = field(default_factory=StepTimes)
    """Seconds of its steps by the sequences in them."""
    _told: float = 0.0
    """`time.monotonic()` of the last step that told its sequences."""

    def stepped(self, running: int | None, now: float) -> None:
        """Take in that a step ended at `now`, with `running` sequences in the batch (`None`: not told)."""
        self.steps += 1
        if running is not None:
            # A sequence that ends in a step is not in `running`. After a step that left none, the engine idled.
            if self.running:
                self.step_times.see(max(running, self.running), now - self._told)
            self.running, self._told = running, now
        self.at = now


@dataclass(frozen=True, slots=True)
class SampleParams:
    """Parameters of one draw."""

    max_tokens: int
    temperature: float
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps every token."""
    stop: tuple[str, ...] = ()
    """Strings that end the continuation; the engine's scheduler matches text."""
    stop_tokens: tuple[int, ...] = ()
    """Token ids that end it."""
    top: int = 0
    """Likeliest next tokens to report at every position."""
    allowed: tuple[int, ...] = ()
    """Token ids of which alone it may consist; none: all. Log-probabilities are then among these."""
    ignore_eos: bool = False
    """True draws on past the model's end tokens."""


@dataclass(frozen=True, slots=True)
class Watch:
    """A hurdle that the engine holds a draw against at the end of each of its actions, by its value head."""

    hurdle: Hurdle
    action: Action
    length: int
    """Tokens of the answer that the prompt holds already."""
    calibration: tuple[float, float]
    """(a, b) of value = sigmoid(a · logit + b)."""


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """One continuation to draw."""

    prompt: Sequence[int]
    """Token ids."""
    params: SampleParams
    seed: int | None = None
    """`None` draws from the engine's shared random stream."""
    watch: Watch | None = None
    barred: tuple[int, ...] = ()
    """Token ids that its first token must not be, `departures.MOST_BARRED` at most."""
    begun: int = 0
    """Tokens at the prompt's end with which its first action begins: stop strings may begin in them."""
    adapter: str | None = None
    """Name of the loaded adapter to draw with; `None`: the policy's own weights."""


@dataclass(frozen=True, slots=True)
class RawSample:
    """One finished or aborted continuation, as the engine gave it."""

    token_ids: list[int]
    logprobs: list[float]
    """Natural log-probability of each sampled token."""
    stopped: bool
    """True if an end token, a stop token or a stop string ended it; False at `max_tokens` and if it was abandoned."""
    top: list[tuple[int, float]] = field(default_factory=list)
    """At the first position: the likeliest tokens and their log-probabilities, likeliest first."""
    logits: list[float] = field(default_factory=list)
    """`logits[i]`: the value head's logit at the state that token i was sampled from; empty without a value head."""
    abandoned: bool = False
    """True if it did not clear the hurdle of its watch."""


@dataclass(slots=True)
class Recording:
    """Calls that engines carried out, in the order in which they ended; aborted and failed ones are left out."""

    samples: list[tuple[Sequence[SampleRequest], Sequence[int]]] = field(default_factory=list)
    """Calls of the policy: requests, and how many tokens each generated."""
    judgements: list[Sequence[tuple[Sequence[int], bool]]] = field(default_factory=list)
    """Calls of models that judge: (prompt, whether every position was judged)."""

    @property
    def calls(self) -> int:
        """Calls of the engines."""
        return len(self.samples) + len(self.judgements)

    @property
    def tokens(self) -> int:
        """Generated tokens."""
        return sum(sum(lengths) for _, lengths in self.samples)


class Engine(Protocol):
    """A running policy or value model."""

    launch: Launch
    """The settings that it was started with."""
    stats: EngineStats
    recording: Recording | None
    """Takes down the engine's calls; `None`: nobody wants them."""
    dead_reason: str | None
    """The reason of its death; `None` while it lives."""
    elsewhere: bool = False
    """True if another server runs it: whether it hangs, ends or comes back is not decided here."""

    @property
    def pids(self) -> list[int]:
        """Process ids of the engine."""

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and continuation together."""

    @property
    def kv_tokens(self) -> int:
        """Tokens that the KV cache has room for."""

    @property
    def unfinished(self) -> int:
        """Requests handed to the engine and not ended."""

    @property
    def causal(self) -> bool:
        """True if a judgement depends only on the tokens up to its position, and can be had at every position."""

    # -- requests -----

    async def generate(self, requests: Sequence[SampleRequest]) -> list[RawSample]:
        """Draw a continuation for each request, in order.

        If cancelled, abort them in the engine and raise `SampleAborted` with what they had generated. Raises
        `RequestRefused`, `EngineDead`."""

    async def classify(self, requests: Iterable[tuple[Sequence[int], bool]]) -> list[list[list[float]]]:
        """Return the raw logits of each label for each (prompt, everywhere): at the prompt's end (one position), or at
        every position. Raises `RequestRefused`, `EngineDead`."""

    async def ping(self, token: int) -> None:
        """Carry out the smallest request there is, of the given token."""

    async def reset_prefix_cache(self) -> None:
        """Forget every cached prefix. Raises `RuntimeError` if blocks are in use."""

    # -- weights -----

    def shut(self) -> None:
        """Let no further request in, except from the task that calls this; others wait until `reopen`."""

    def reopen(self) -> None:
        """Let requests in again."""

    @property
    def held(self) -> bool:
        """True while requests wait for weights to be replaced."""

    async def idle(self) -> None:
        """Wait until nothing that was let in is left. Only after `shut`; put a deadline around it."""

    async def load_value_head(self, path: Path) -> None:
        """Judge every sampled token by the value head in `path`, in place of the one before if there is one.

        Check the file before. Raises `EngineError` if the engine refuses it."""

    async def load_adapter(self, name: str, path: Path) -> None:
        """Have requests name the LoRA adapter in `path`. Requests under way go on. Check the files before, and that no
        more are loaded than fit. Raises `EngineError` if the engine refuses it."""

    async def drop_adapter(self, name: str) -> None:
        """Forget a loaded adapter that no request names any more. Raises `EngineError`."""

    async def reload(self, path: Path) -> None:
        """Replace the weights by those in `path`, and forget every cached prefix.

        Check the files before and what is served after: a load that failed half-way cannot be taken back. Raises
        `EngineError` if the engine refuses or holds on to cached prefixes."""

    # -- life -----

    def attach(self, on_death: Callable[[str], None]) -> None:
        """Bind to the running event loop, and call `on_death` with a reason once an engine process has ended."""

    def give_up(self, reason: str) -> None:
        """Count the engine as dead, whatever its process does: everyone who waits for it gets `EngineDead`."""

    async def close(self) -> None:
        """End the engine's processes."""

    def kill(self) -> None:
        """End the engine's processes from a thread that has no event loop."""


@contextmanager
def plain_cancellation() -> Iterator[None]:
    """Raise `CancelledError` in place of `SampleAborted`, whose tokens nobody counts: asyncio.timeout knows no
    subclasses."""
    try:
        yield
    except SampleAborted:
        raise asyncio.CancelledError from None
