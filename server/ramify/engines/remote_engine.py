"""`RemoteEngine`: the policy on another vLLM server, behind the port `engines.ports.Engine`.

Every draw is a streamed request of its own to `/v1/completions`. The prompt goes out as token ids; the ids of what was
drawn come back as the names of its log-probabilities (`return_tokens_as_token_ids`). A stream shows progress: a draw
has a deadline between tokens and none for its length, and a cancelled one knows what had come. Every penalty is sent
beside the parameters of a draw, lest the server's generation_config.json change the distribution.

What an engine at home does and this cannot is refused by name: other weights, a value head on the trunk, an empty
prefix cache. Two things are lost without a refusal. Tokens that a cancelled draw had generated and not sent are not
counted: up to `INTERVAL`, and what was on its way. The seconds of an engine's steps are not known, so searches on a
clock do not share them out.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from ramify.engine_options import PolicyServerOptions
from ramify.engines.errors import EngineError, EngineStartFailed, PolicyUnreachable
from ramify.engines.http import FIRST_WAIT
from ramify.engines.policy_server import PolicyServer
from ramify.engines.ports import (
    Engine,
    EngineStats,
    RawSample,
    Recording,
    SampleParams,
    SampleRequest,
)
from ramify.engines.start import Launch
from ramify.engines.tokenizer import Tokenizer
from ramify.races import cancel
from ramify.search.protocols import EngineDead, SampleAborted

COMPLETIONS = "/v1/completions"
INTERVAL = 16
"""Tokens of one event of a stream: each event costs both servers time."""
ID = "token_id:"
"""Beginning of a token in vLLM's log-probabilities, before its id."""
NO_PENALTY = {"min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
SAMPLE = "1 + 1 = 2; naïve\n\n\tprint('Hello, world') # 你好"
"""Text on which both tokenizers are compared."""
AT_ONCE = 4096
"""Tokens whose spelling is asked for at once."""
EXACT = 1e-3
"""Largest distance of a log-probability from what it must be."""


class RemoteEngine(Engine):
    """The policy on another server."""

    elsewhere = True

    def __init__(
        self,
        launch: Launch,
        server: PolicyServer,
        served: str,
        max_model_len: int,
        options: PolicyServerOptions,
    ) -> None:
        """served: the model's name there. max_model_len: tokens of prompt and continuation together."""
        self.launch = launch
        self.server = server
        self.served = served
        self.stats = EngineStats()
        self.recording: Recording | None = None
        self.dead_reason: str | None = None
        self._max_model_len = max_model_len
        self._retries = options.retries
        self._places = asyncio.Semaphore(options.parallel)
        self._drawing: set[asyncio.Task[RawSample]] = set()

    @classmethod
    async def connect(
        cls,
        launch: Launch,
        server: PolicyServer,
        tokenizer: Tokenizer,
        options: PolicyServerOptions,
        setting: str = "policy_server",
    ) -> RemoteEngine:
        """Make sure that the server has the tokenizer's model, or under another `setting` than `policy_server` a model
        with the same tokenizer, and gives what searches need.

        Raises `EngineStartFailed` with what to do."""
        name, length = await _model(server, options.served, launch.options.max_model_len, setting)
        engine = cls(launch, server, name, length, options)
        try:
            await _check_tokenizer(engine, tokenizer, setting)
            if setting != "policy_server":
                await _check_vocabulary(engine, tokenizer)
            await _check_draws(engine, tokenizer)
        except EngineStartFailed:
            raise
        except (EngineError, EngineDead) as error:
            raise EngineStartFailed(f"the policy cannot be had from another server: {error}") from error
        return engine

    @property
    def pids(self) -> list[int]:
        return []

    @property
    def max_model_len(self) -> int:
        return self._max_model_len

    @property
    def kv_tokens(self) -> int:
        return 0

    @property
    def unfinished(self) -> int:
        return len(self._drawing)

    @property
    def causal(self) -> bool:
        return True

    # -- life ---------------------------------------------------------------------------------------------------------

    def attach(self, on_death: Callable[[str], None]) -> None:
        """Nothing to watch: no process of this server's is behind it, and its server may come back."""

    def give_up(self, reason: str) -> None:
        self.dead_reason = self.dead_reason or reason
        for draw in self._drawing:
            draw.cancel()

    async def close(self) -> None:
        self.give_up("the policy's server was let go")
        await asyncio.gather(*self._drawing, return_exceptions=True)
        await self.server.close()

    def kill(self) -> None:
        """Nothing to end."""

    # -- weights ------------------------------------------------------------------------------------------------------

    @property
    def held(self) -> bool:
        return False

    def shut(self) -> None:
        self._refuse("its weights are replaced there")

    def reopen(self) -> None:
        """Nothing to let in: it was never shut."""

    async def idle(self) -> None:
        self._refuse("its weights are replaced there")

    async def reload(self, path: Path) -> None:
        self._refuse("its weights are replaced there")

    async def load_value_head(self, path: Path) -> None:
        self._refuse("a value head needs an engine at home")

    async def reset_prefix_cache(self) -> None:
        raise RuntimeError(f"the prefix cache of the policy's server at {self.server.place} is its own")

    def _refuse(self, instead: str) -> NoReturn:
        raise EngineError(f"the policy is on another server, {self.server.place}: {instead}")

    # -- requests -----------------------------------------------------------------------------------------------------

    async def generate(self, requests: Sequence[SampleRequest]) -> list[RawSample]:
        if self.dead_reason:
            raise EngineDead(self.dead_reason)
        draws = [_Draw(request) for request in requests]
        tasks = [asyncio.create_task(self._finished(draw)) for draw in draws]
        self._drawing.update(tasks)
        self.stats.running = len(self._drawing)
        try:
            samples = await asyncio.gather(*tasks)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self.dead_reason and task is not None and not task.cancelling():
                raise EngineDead(self.dead_reason) from None
            raise SampleAborted(sum(len(draw.tokens) for draw in draws)) from None
        finally:
            await cancel(*tasks)
            self._drawing.difference_update(tasks)
            self.stats.running = len(self._drawing)
        if self.recording is not None:
            self.recording.samples.append((requests, [len(sample.token_ids) for sample in samples]))
        return samples

    async def classify(self, requests: Iterable[tuple[Sequence[int], bool]]) -> list[list[list[float]]]:
        self._refuse("it judges nothing")

    async def ping(self, token: int) -> None:
        """Past the queue of draws: how long that is says nothing of the server."""
        if self.dead_reason:
            raise EngineDead(self.dead_reason)
        await self._once(_Draw(SampleRequest([token], SampleParams(max_tokens=1, temperature=0.0))))

    async def _finished(self, draw: _Draw) -> RawSample:
        """Draw to the end; again if the server was away and a second try gives the same."""
        request = draw.request
        same = request.seed is not None or request.params.temperature == 0
        attempt, end = 0, math.inf
        while True:
            try:
                async with self._places:
                    end = min(end, time.monotonic() + self.server.seconds)
                    return await self._once(draw)
            except PolicyUnreachable:
                if not same or attempt == self._retries or time.monotonic() > end:
                    raise
            await asyncio.sleep(FIRST_WAIT * 2**attempt * random.uniform(0.75, 1.25))
            attempt += 1

    async def _once(self, draw: _Draw) -> RawSample:
        draw.clear()
        body = {"model": self.served, **body_of(draw.request)}
        async with aclosing(self.server.stream(COMPLETIONS, body)) as events:
            async for event in events:
                self.stats.stepped(None, time.monotonic())
                try:
                    draw.take(event)
                except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                    raise EngineError(
                        f"{self.server.place} gives no token ids with their log-probabilities: serve the model with "
                        "vLLM, whose /v1/completions takes return_tokens_as_token_ids"
                    ) from error
        return draw.sample(self.server.place)


def body_of(request: SampleRequest) -> dict[str, Any]:
    """Return the request to `/v1/completions`, but for the model's name."""
    params = request.params
    assert request.watch is None  # only a policy with a value head watches its draws
    body: dict[str, Any] = {
        "prompt": list(request.prompt),
        "max_tokens": params.max_tokens,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "top_k": params.top_k,
        **NO_PENALTY,
        "logprobs": params.top,
        "return_tokens_as_token_ids": True,
        "ignore_eos": params.ignore_eos,
        "stream": True,
        "stream_interval": INTERVAL,
    }
    if request.seed is not None:
        body["seed"] = request.seed & (1 << 63) - 1
    told = {"stop": params.stop, "stop_token_ids": params.stop_tokens, "allowed_token_ids": params.allowed}
    return body | {name: list(value) for name, value in told.items() if value}


@dataclass(slots=True)
class _Draw:
    """One draw, as far as it has come."""

    request: SampleRequest
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top: list[tuple[int, float]] = field(default_factory=list)
    finish: str | None = None

    def clear(self) -> None:
        self.tokens, self.logprobs, self.top, self.finish = [], [], [], None

    def take(self, event: Mapping[str, Any]) -> None:
        """Add what one event of the stream brings."""
        for choice in event["choices"]:
            self.finish = choice.get("finish_reason") or self.finish
            found = choice["logprobs"]
            if found is None and not choice["text"]:
                continue
            if not self.tokens and self.request.params.top and found["tokens"]:
                self.top = _likeliest(found["top_logprobs"][0], self.request.params.top)
            self.tokens += map(_id, found["tokens"])
            self.logprobs += map(_logprob, found["token_logprobs"])
        if not len(self.tokens) == len(self.logprobs) <= self.request.params.max_tokens:
            raise ValueError("there are too many tokens, or not a log-probability for each")

    def sample(self, place: str) -> RawSample:
        if self.finish in (None, "abort"):
            raise PolicyUnreachable(f"the policy's server at {place} broke a draw off")
        if self.finish not in ("stop", "length") or not self.tokens:
            raise EngineError(
                f"the policy's server at {place} ended a draw of {len(self.tokens)} tokens by {self.finish!r}"
            )
        return RawSample(self.tokens, self.logprobs, self.finish == "stop", self.top)


def _likeliest(found: Mapping[str, Any], top: int) -> list[tuple[int, float]]:
    """Return the `top` likeliest tokens: vLLM puts the drawn one before them, wherever it ranks."""
    ranked = sorted(
        ((_id(token), _logprob(value)) for token, value in found.items()), key=lambda one: -one[1]
    )
    return ranked[:top]


def _id(token: str) -> int:
    return int(token.removeprefix(ID)) if token.startswith(ID) else int("no id")


def _logprob(value: Any) -> float:
    found = float(value)
    if not math.isfinite(found):
        raise ValueError("a log-probability is none")
    return found


# -- what is checked at the start -------------------------------------------------------------------------------------


async def _model(
    server: PolicyServer, served: str | None, longest: int | None, setting: str
) -> tuple[str, int]:
    """Return the name of the model there and the tokens that it takes, by GET /v1/models."""
    try:
        cards = (await server.ask("/v1/models"))["data"]
        lengths = {str(card["id"]): card.get("max_model_len") for card in cards}
        bases = [str(card["id"]) for card in cards if not card.get("parent")]
    except (EngineError, EngineDead) as error:
        raise EngineStartFailed(
            f"{error}; check the setting {setting}.url, its key, and that the server is up"
        ) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise EngineStartFailed(
            f"{server.place} is no OpenAI-compatible server: it lists no models"
        ) from error
    if served is None and len(bases) == 1:
        served = bases[0]
    if served not in lengths:
        raise EngineStartFailed(
            f"{server.place} serves {', '.join(lengths) or 'nothing'}: name one (setting {setting}.served)"
        )
    known = [length for length in (lengths[served], longest) if length is not None]
    if not known:
        raise EngineStartFailed(
            f"{server.place} does not say how many tokens {served} takes: set engine.max_model_len"
        )
    return served, min(known)


async def _check_tokenizer(engine: RemoteEngine, tokenizer: Tokenizer, setting: str) -> None:
    server = engine.server
    found = await server.ask(
        "/tokenize", {"model": engine.served, "prompt": SAMPLE, "add_special_tokens": False}
    )
    if not isinstance(found, dict) or found.get("tokens") != tokenizer.encode_continuation(SAMPLE):
        remedy = (
            "give the directory of the model that it serves (setting policy)"
            if setting == "policy_server"
            else f"name a server of a model with the tokenizer of the policy served (setting {setting}.url)"
        )
        raise EngineStartFailed(
            f"{engine.served} at {server.place} has another tokenizer than {engine.launch.path}: {remedy}"
        )


async def _check_vocabulary(engine: RemoteEngine, tokenizer: Tokenizer) -> None:
    """Raise `EngineStartFailed` unless every token, special ones too, is spelt there as it is here."""
    size = len(tokenizer.hf)
    for start in range(0, size, AT_ONCE):
        ids = [*range(start, min(size, start + AT_ONCE))]
        found = await engine.server.ask("/detokenize", {"model": engine.served, "tokens": ids})
        if not isinstance(found, dict) or found.get("prompt") != tokenizer.hf.decode(ids):
            raise EngineStartFailed(
                f"{engine.served} at {engine.server.place} spells its tokens {ids[0]} to {ids[-1]} otherwise than the "
                "policy served: policies of one search need the same tokenizer"
            )


async def _check_draws(engine: RemoteEngine, tokenizer: Tokenizer) -> None:
    """Draw a token if no other is allowed, and a few greedily."""
    prompt, token = tokenizer.encode(SAMPLE), tokenizer.a_token
    only = SampleParams(max_tokens=1, temperature=1.0, allowed=(token,))
    greedy = SampleParams(max_tokens=4, temperature=0.0, top=1)
    one, few = await engine.generate([SampleRequest(prompt, only, seed=0), SampleRequest(prompt, greedy)])
    if one.token_ids != [token] or abs(one.logprobs[0]) > EXACT:
        raise EngineStartFailed(
            f"{engine.server.place} does not give log-probabilities of the distribution that it draws from: start "
            "it with --logprobs-mode processed_logprobs"
        )
    if few.logprobs[0] < few.top[0][1] - EXACT or max(few.logprobs) > EXACT:
        raise EngineStartFailed(
            f"{engine.server.place} draws greedily what is not likeliest by its own log-probabilities"
        )
