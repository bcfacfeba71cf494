"""The policy of a search on an engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import lru_cache

from ramify.engines.config import Serving
from ramify.engines.limiter import EngineLimiter
from ramify.engines.ports import Engine, RawSample, SampleParams, SampleRequest
from ramify.engines.tokenizer import Tokenizer
from ramify.search.protocols import SampleAborted
from ramify.search.records import Continuation, Finish, Sampling


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
    were nearly level: same search, same tree is then likely, not promised. A seed costs the engine 5 µs a token.

    Stop strings become stop tokens if that is exact (`tokenizer.stop_tokens`); else vLLM matches them on text.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        limiter: EngineLimiter,
        serving: Callable[[], Serving],
        seeded: bool,
    ) -> None:
        """serving: what the engine serves at that moment. seeded: whether each draw follows its own seed."""
        self.seeded = seeded
        self._serving = serving
        self._engine = engine
        self._tokenizer = tokenizer
        self._limiter = limiter
        self._params = lru_cache(1024)(self._make_params)

    async def sample(
        self, prefix: Sequence[int], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Continuation]:
        """Draw a continuation for each seed. Raises `SampleAborted`, `EngineDead` or an `EngineError`.

        The count of `SampleAborted` leaves out what the step computed in which the engine heard of it."""
        prompt = list(prefix)
        params = self._params(sampling)
        if self.seeded and sampling.temperature > 0:
            requests = [SampleRequest(prompt, params, seed) for seed in seeds]
        else:
            requests = [SampleRequest(prompt, params)] * len(seeds)
        try:
            taken = await self._limiter.acquire(len(seeds))
        except asyncio.CancelledError:
            raise SampleAborted(0) from None
        try:
            drawn = await self._engine.generate(requests)
            # Weights change only while no request is under way: these are the ones that it ran on.
            release = self._serving().release
        finally:
            self._limiter.release(taken)
        return [self._step(prefix, one, release) for one in drawn]

    async def next_tokens(self, prefix: Sequence[int], k: int, temperature: float) -> list[Continuation]:
        """The k likeliest next tokens with their exact log-probabilities, likeliest first.

        At temperature 0 the log-probabilities are those of temperature 1."""
        params = SampleParams(max_tokens=1, temperature=temperature, top=k)
        taken = await self._limiter.acquire(1)
        try:
            (drawn,) = await self._engine.generate([SampleRequest(list(prefix), params)])
            release = self._serving().release
        except SampleAborted:
            raise asyncio.CancelledError from None
        finally:
            self._limiter.release(taken)
        steps = []
        for token, logprob in drawn.top[:k]:
            text, ends = self._tokenizer.spell(prefix, [token])
            finish: Finish = "eos" if token in self._tokenizer.eos_ids else "length"
            steps.append(Continuation((token,), text, (logprob,), ends, finish, release))
        return steps

    def _step(self, prefix: Sequence[int], drawn: RawSample, release: str) -> Continuation:
        tokens = tuple(drawn.token_ids)
        text, ends = self._tokenizer.spell(prefix, tokens)
        finish: Finish = "length"
        if drawn.stopped:
            finish = "eos" if tokens[-1] in self._tokenizer.eos_ids else "stop"
        return Continuation(tokens, text, tuple(drawn.logprobs), ends, finish, release)

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
