"""The policy of a search on an engine."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

from ramify.engines.config import Serving
from ramify.engines.limiter import EngineLimiter
from ramify.engines.ports import (
    Engine,
    RawSample,
    SampleParams,
    SampleRequest,
    Watch,
    plain_cancellation,
)
from ramify.engines.scorer import sigmoid
from ramify.engines.tokenizer import Tokenizer
from ramify.search.protocols import SampleAborted
from ramify.search.records import Action, Continuation, Departure, Finish, Hurdle, Sampling


class VllmPolicy:
    """`search.protocols.Policy` on one engine.

    Every draw is an engine request of its own under its own seed: vLLM's `n` would give neighbouring draws the seeds
    s, s + 1, ..., and inside the engine n draws are n requests anyway.

    `Continuation.text` is what its tokens decode to, whole: if a stop string ends inside a token, the rest of that
    token stays in the text, so that texts and tokens always agree.

    What is repeatable on vLLM 0.32's CPU backend: a draw depends on its seed, the weights and the prefix alone as
    far as the logits do. In float32 that held for every draw tried, also in batches that mix greedy, seeded and
    truncated requests (vllm#51226 is not seen). In bfloat16 a logit's last bits depend on how many rows are computed
    together and on what the prefix cache holds, so under other load a draw may take another turn if two tokens
    were nearly level: same search, same tree is then likely, not promised.

    Stop strings become stop tokens if that is exact (`tokenizer.stop_tokens`); else the engine's scheduler matches
    them on text.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        limiter: EngineLimiter,
        serving: Callable[[], Serving],
        seeded: bool,
    ) -> None:
        """serving: the release that the calling task leases, else the one served. seeded: whether each draw follows its
        own seed."""
        self.seeded = seeded
        self._serving = serving
        self._engine = engine
        self._tokenizer = tokenizer
        self._limiter = limiter
        self._params = lru_cache(1024)(self._make_params)

    @property
    def departs(self) -> bool:
        """See `search.protocols.DepartingPolicy`. A remote server cannot leave tokens out."""
        return not self._engine.elsewhere

    async def sample(
        self,
        prefix: Sequence[int],
        sampling: Sampling,
        seeds: Sequence[int],
        *,
        departures: Sequence[Departure | None] = (),
    ) -> list[Continuation]:
        """Draw a continuation for each seed. Raises `SampleAborted`, `EngineDead` or an `EngineError`.

        The count of `SampleAborted` leaves out what the step computed in which the engine heard of it."""
        return await self._draw(prefix, sampling, seeds, None, departures)

    async def _draw(
        self,
        prefix: Sequence[int],
        sampling: Sampling,
        seeds: Sequence[int],
        watch: Watch | None,
        departures: Sequence[Departure | None],
    ) -> list[Continuation]:
        serving, departures = self._serving(), departures or [None] * len(seeds)
        own = seeds if self.seeded and sampling.temperature > 0 else [None] * len(seeds)
        requests = [
            self._request(prefix, sampling, seed, watch, departure, serving.adapter)
            for seed, departure in zip(own, departures, strict=True)
        ]
        try:
            taken = await self._limiter.acquire(len(seeds))
        except asyncio.CancelledError:
            raise SampleAborted(0) from None
        try:
            drawn = await self._engine.generate(requests)
        finally:
            self._limiter.release(taken)
        return [
            self._continuation(prefix, one, departure, serving)
            for one, departure in zip(drawn, departures, strict=True)
        ]

    def _request(
        self,
        prefix: Sequence[int],
        sampling: Sampling,
        seed: int | None,
        watch: Watch | None,
        departure: Departure | None,
        adapter: str | None,
    ) -> SampleRequest:
        if departure is None:
            return SampleRequest(list(prefix), self._params(sampling), seed, watch, adapter=adapter)
        begun = len(departure.tokens)
        if watch is not None:
            watch = replace(watch, length=watch.length + begun)
        params = self._params(replace(sampling, max_tokens=sampling.max_tokens - begun))
        prompt = [*prefix, *departure.tokens]
        return SampleRequest(prompt, params, seed, watch, departure.barred, begun, adapter)

    async def next_tokens(self, prefix: Sequence[int], k: int, temperature: float) -> list[Continuation]:
        """The k likeliest next tokens with their exact log-probabilities, likeliest first.

        At temperature 0 the log-probabilities are those of temperature 1."""
        params, serving = SampleParams(max_tokens=1, temperature=temperature, top=k), self._serving()
        request = SampleRequest(list(prefix), params, adapter=serving.adapter)
        async with self._limiter.slots(1):
            with plain_cancellation():
                (drawn,) = await self._engine.generate([request])
        steps = []
        for token, logprob in drawn.top[:k]:
            stopped = token in self._tokenizer.eos_ids
            one = RawSample([token], [logprob], stopped, logits=drawn.logits[:1])
            steps.append(self._continuation(prefix, one, None, serving))
        return steps

    def _continuation(
        self, prefix: Sequence[int], drawn: RawSample, departure: Departure | None, serving: Serving
    ) -> Continuation:
        tokens, logprobs = tuple(drawn.token_ids), tuple(drawn.logprobs)
        values = self._values(drawn, serving.calibration)
        taken = 0
        if departure is not None:
            # The engine drew the first token among those that are not barred.
            first = min(0.0, logprobs[0] + math.log1p(-departure.mass))
            logprobs = (*departure.logprobs, first, *logprobs[1:])
            tokens = (*departure.tokens, *tokens)
            taken = len(departure.tokens)
            values = (*[None] * taken, *values) if values else ()
        text, ends = self._tokenizer.spell(prefix, tokens)
        finish: Finish = "abandoned" if drawn.abandoned else "length"
        if drawn.stopped:
            finish = "eos" if tokens[-1] in self._tokenizer.eos_ids else "stop"
        return Continuation(tokens, text, logprobs, ends, finish, serving.release, values, taken=taken)

    def _values(self, drawn: RawSample, calibration: tuple[float, float]) -> tuple[float | None, ...]:
        """Return the values of a draw's tokens; none from a policy that does not judge."""
        return ()

    def _make_params(self, sampling: Sampling) -> SampleParams:
        tokens = self._tokenizer.stop_tokens(sampling.stop)
        return SampleParams(
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            stop=sampling.stop if tokens is None else (),
            stop_tokens=tokens or (),
        )


class JudgingVllmPolicy(VllmPolicy):
    """`search.protocols.JudgingPolicy` on an engine with a value head.

    The engine gives the logit of the state that each token is sampled from. So the value of a draw as far as a token is
    known once the next one is sampled; as far as a token that only closes (`tokens.closing_tokens`), at once. That of a
    draw which is cut at its last token, and does not close there, is not known.
    """

    async def write_on(
        self,
        prefix: Sequence[int],
        sampling: Sampling,
        seeds: Sequence[int],
        *,
        action: Action,
        hurdle: Hurdle,
        length: int,
        departures: Sequence[Departure | None] = (),
    ) -> list[Continuation]:
        """Draw as `sample` does, in one request a draw: the engine holds each against the hurdle, in the step in which
        its value is known. A draw that does not close when it is given up has one token more."""
        watch = Watch(hurdle, action, length, self._serving().calibration)
        return await self._draw(prefix, sampling, seeds, watch, departures)

    def _values(self, drawn: RawSample, calibration: tuple[float, float]) -> tuple[float | None, ...]:
        a, b = calibration
        before = [sigmoid(a * logit + b) for logit in drawn.logits]
        closing = self._tokenizer.closing
        after = [*before[1:], None]
        return tuple(before[i] if token in closing else after[i] for i, token in enumerate(drawn.token_ids))
