"""Completions without a search: the policy alone, under the same admission, deadline and drain as searches.

Nothing of them is logged: there is no tree.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from ramify.engines.errors import EngineBusy, EngineError, RequestRefused
from ramify.search.protocols import EngineDead
from ramify.service.admission import Admission, Ticket
from ramify.service.ask import Message
from ramify.service.errors import (
    BadRequest,
    EngineUnavailable,
    GenerationFailed,
    NoAnswer,
    ServerBusy,
    ServiceError,
)
from ramify.service.keys import Caller
from ramify.service.metrics import Metrics
from ramify.service.ports import Engines, ServedModel
from ramify.service.prepare import over, unknown_model
from ramify.settings import Limits

Chunk = Mapping[str, Any]
FINISHED = (None, "stop", "length")
DEFAULT_TOKENS = 16
"""OpenAI's cap on a completion that names none."""


@dataclass(frozen=True, slots=True)
class PlainAsk:
    """A completion, or a chat where there are `messages`, as it was asked for; each value is within its bounds."""

    model: str | None
    prompts: tuple[str | tuple[int, ...], ...] = ()
    messages: tuple[Message, ...] = ()
    n: int = 1
    """Choices for each prompt."""
    max_tokens: int | None = None
    max_tokens_field: str = "max_tokens"
    """What the asker called it."""
    echo: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Everything else, by the names that vLLM's OpenAI request knows."""

    @property
    def route(self) -> str:
        return "chat" if self.messages else "completion"


@dataclass(frozen=True, slots=True)
class _Work:
    """What is asked of the engine."""

    route: str
    body: Mapping[str, Any]
    sequences: int
    tokens: int
    """Generated tokens that it may cost."""
    scored_only: bool = False
    """Whether nothing is to be written: only the log-probabilities of the prompt are wanted."""

    def counted(self, reply: Chunk) -> Chunk:
        """vLLM's reply with the usage that the asker sees: vLLM draws a token to score a prompt, and sends none."""
        usage = reply.get("usage")
        if not self.scored_only or not usage:
            return reply
        return {**reply, "usage": {**usage, "completion_tokens": 0, "total_tokens": usage["prompt_tokens"]}}


@dataclass(eq=False, slots=True)
class Generation:
    """One that was admitted and has not ended."""

    ticket: Ticket
    alarm: asyncio.Timeout
    """Ends it; set to its deadline."""
    counts: dict[int, int] = field(default_factory=dict)
    """Tokens generated so far, by choice; known of streams only, until the end."""
    stopped: bool = False
    """Whether it was told to end before its deadline."""

    @property
    def spent(self) -> int:
        return sum(self.counts.values())

    def stop(self) -> None:
        """End it now."""
        self.stopped = True
        self.alarm.reschedule(asyncio.get_running_loop().time())

    def note(self, chunk: Chunk) -> None:
        """Count what a chunk says of its choices."""
        usage = chunk.get("usage") or {}
        for choice in chunk["choices"]:
            self.counts[choice["index"]] = usage.get("completion_tokens", 0)


class Stream:
    """Chunks as they are written. The engine's own task fills the queue, which `max_tokens` bounds."""

    def __init__(self) -> None:
        self.life: asyncio.Task[None] | None = None
        self.queue: asyncio.Queue[Chunk | None] = asyncio.Queue()
        self._ahead: list[Chunk] = []

    async def first(self) -> None:
        """Wait for the first chunk, so that what is refused is refused before anything is sent."""
        self._ahead.append(await anext(self))

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self

    async def __anext__(self) -> Chunk:
        """The next chunk. Raises `ServiceError` where the work failed."""
        if self._ahead:
            return self._ahead.pop()
        chunk = await self.queue.get()
        if chunk is None:
            assert self.life is not None
            await self.life
            raise StopAsyncIteration
        return chunk

    async def close(self) -> None:
        """Abort what is left."""
        assert self.life is not None
        self.life.cancel()
        await asyncio.gather(self.life, return_exceptions=True)


@dataclass(eq=False, slots=True)
class Completions:
    """Every plain completion of this server. All calls on one event loop."""

    engines: Engines
    model: ServedModel
    limits: Limits
    admission: Admission
    metrics: Metrics
    clock: Callable[[], float]
    """Seconds, monotonic."""
    draining: Callable[[], bool]
    running: set[Generation] = field(default_factory=set)
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    async def complete(self, ask: PlainAsk, caller: Caller) -> Chunk:
        """The whole answer in vLLM's shape; cancelled, its engine work is aborted. Raises `ServiceError`."""
        arrived = self.clock()
        work = await self._prepare(ask)
        async with self._admitted(work, caller, arrived) as generation:
            reply = work.counted(await self.engines.plain.complete(work.body, work.sequences))
            generation.counts[0] = reply["usage"]["completion_tokens"]
            _check_finished(reply)
        return reply

    async def stream(self, ask: PlainAsk, caller: Caller) -> Stream:
        """The answer in chunks, once there is a first one. Close it in the end. Raises `ServiceError`."""
        arrived = self.clock()
        work = await self._prepare(ask)
        stream = Stream()
        stream.life = asyncio.create_task(self._pump(stream, work, caller, arrived), name="plain-stream")
        try:
            await stream.first()
        except BaseException:
            await stream.close()
            raise
        return stream

    async def _pump(self, stream: Stream, work: _Work, caller: Caller, arrived: float) -> None:
        try:
            async with (
                self._admitted(work, caller, arrived) as generation,
                aclosing(self.engines.plain.stream(work.body, work.sequences)) as chunks,
            ):
                async for counted in chunks:
                    chunk = work.counted(counted)
                    generation.note(chunk)
                    _check_finished(chunk)
                    stream.queue.put_nowait(chunk)
        finally:
            stream.queue.put_nowait(None)

    async def drain(self, grace: float) -> None:
        """Let what runs go on for `grace` seconds, then end it. Admission is closed by the searches' own drain."""
        await self._until_idle(grace)
        self.stop_all()
        await self._until_idle(None)

    def stop_all(self) -> None:
        """End everything that runs."""
        for generation in self.running:
            generation.stop()

    async def _until_idle(self, seconds: float | None) -> None:
        while self.running:
            self._idle.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._idle.wait()
            except TimeoutError:
                return

    @asynccontextmanager
    async def _admitted(self, work: _Work, caller: Caller, arrived: float) -> AsyncIterator[Generation]:
        """The engine work of one request: its reservation, its deadline, its errors as the service's."""
        if self.draining():
            raise ServerBusy("the server is shutting down", retry_after=30)
        if self.engines.dead.is_set():
            raise EngineUnavailable("an engine has died; the server is about to restart", retry_after=30)
        ticket = await self.admission.enter(caller.key_id, work.tokens)
        left = self.limits.deadline_seconds - (self.clock() - arrived)
        generation = Generation(ticket, asyncio.timeout(max(0.0, left)))
        ticket.spent = lambda: generation.spent
        self.running.add(generation)
        outcome = "failed"
        try:
            with _translated(generation):
                async with generation.alarm:
                    yield generation
            outcome = "complete"
        except (asyncio.CancelledError, GeneratorExit):
            outcome = "cancelled"
            raise
        finally:
            self.running.discard(generation)
            self.admission.leave(ticket)
            self.metrics.completed(work.route, outcome, generation.spent)
            if not self.running:
                self._idle.set()

    async def _prepare(self, ask: PlainAsk) -> _Work:
        """Raises `BadRequest` and `NotFound`, naming the field."""
        if ask.model is not None and ask.model != self.model.name:
            raise unknown_model(ask.model, self.model.name)
        self._check_ids(ask)
        if ask.n > 1 and ask.fields.get("temperature") == 0:
            raise BadRequest("is more than 1 at temperature 0: all answers would be the same", param="n")
        body: dict[str, Any] = {**ask.fields, "n": ask.n}
        if ask.messages:
            body |= {"messages": [m.fields() for m in ask.messages]}
            cap = self._cap(ask, await self._chat_tokens(ask, body))
            body |= {"max_completion_tokens": cap}
        else:
            prompts = [self._prompt(prompt) for prompt in ask.prompts]
            cap = self._cap(ask, max(map(len, prompts)))
            # vLLM need not tokenize again, unless the prompt's own text is to come back
            body |= {"prompt": list(ask.prompts) if ask.echo else prompts, "max_tokens": cap}
            body |= {"echo": ask.echo}
        sequences = ask.n * max(1, len(ask.prompts))
        if sequences * cap > self.limits.budget_tokens:
            raise BadRequest(
                f"is {cap}: {sequences} answers of it may cost {sequences * cap} tokens; this server takes at most "
                f"{self.limits.budget_tokens} in one request",
                param=ask.max_tokens_field,
            )
        return _Work(ask.route, body, sequences, sequences * max(1, cap), scored_only=cap == 0)

    def _check_ids(self, ask: PlainAsk) -> None:
        last = self.model.vocabulary - 1
        given: dict[str, Sequence[int]] = {
            "logit_bias": [int(token) for token in ask.fields.get("logit_bias", ())],
            "stop_token_ids": ask.fields.get("stop_token_ids", ()),
            "prompt": [t for prompt in ask.prompts if not isinstance(prompt, str) for t in prompt],
        }
        for name, tokens in given.items():
            if any(token > last for token in tokens):
                raise BadRequest(f"holds a token id outside 0 to {last}", param=name)

    def _prompt(self, prompt: str | Sequence[int]) -> list[int]:
        if len(prompt) > self.limits.prompt_chars:
            raise BadRequest(
                f"has a length of {len(prompt)}; at most {self.limits.prompt_chars} is taken", param="prompt"
            )
        tokens = self.engines.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
        if not tokens:
            raise BadRequest("must not be empty", param="prompt")
        return tokens

    async def _chat_tokens(self, ask: PlainAsk, body: Mapping[str, Any]) -> int:
        """Tokens of a conversation, by the very code that will make its prompt."""
        length = sum(len(m.content) for m in ask.messages)
        if length > self.limits.prompt_chars:
            raise BadRequest(
                f"has {length} characters; at most {self.limits.prompt_chars} are taken", param="messages"
            )
        try:
            return await self.engines.plain.prompt_tokens(body)
        except RequestRefused as error:
            param = error.param if error.param in body else "messages"
            raise BadRequest(str(error)[:500], param=param) from error

    def _cap(self, ask: PlainAsk, longest: int) -> int:
        """Tokens of one answer."""
        room, cap, name = self.engines.max_model_len - longest, ask.max_tokens, ask.max_tokens_field
        if room < 1:
            raise BadRequest(
                f"has {longest} tokens; the model takes {self.engines.max_model_len}, the answer included",
                param="messages" if ask.messages else "prompt",
            )
        if cap is None:
            return min(room, self.limits.answer_tokens if ask.messages else DEFAULT_TOKENS)
        if cap == 0 and not ask.echo:
            raise BadRequest("is 0, which makes sense with echo only", param=name)
        if cap > self.limits.answer_tokens:
            raise over(name, cap, self.limits.answer_tokens)
        if cap > room:
            raise BadRequest(
                f"is {cap}, but {longest} prompt tokens leave room for {room} in the model's "
                f"{self.engines.max_model_len}",
                param=name,
            )
        return cap


class _translated:
    """Errors of engines and deadlines as the service's."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if problem := self._problem(error):
            raise problem from error

    def _problem(self, error: BaseException | None) -> ServiceError | None:
        if isinstance(error, EngineDead):
            return EngineUnavailable("the policy engine has died", retry_after=30)
        if isinstance(error, EngineBusy):
            return ServerBusy("the policy engine's queue is full", retry_after=2)
        if isinstance(error, RequestRefused):
            return BadRequest(str(error)[:500], param=error.param)
        if isinstance(error, TimeoutError):
            if self._generation.stopped:
                return ServerBusy("the server ends what runs: it shuts down or reloads", retry_after=5)
            return NoAnswer("the deadline came before the answer was complete")
        if isinstance(error, EngineError):
            return GenerationFailed(str(error)[:500])
        return None


def _check_finished(reply: Chunk) -> None:
    """Raises `ServerBusy` where the engine threw an answer away, as it does where its weights are exchanged."""
    if any(choice.get("finish_reason") not in FINISHED for choice in reply["choices"]):
        raise ServerBusy("the engine gave the answer up unfinished", retry_after=1)
