"""Completions without a search: the policy alone, under the same admission, deadline and drain as searches.

They are not logged: there is no tree.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from ramify.engines.errors import EngineError
from ramify.races import cancel
from ramify.search.protocols import EngineDead
from ramify.service.admission import Admission, Ticket
from ramify.service.completion_spec import Chunk, CompletionPreparer, CompletionRequest, CompletionSpec
from ramify.service.errors import DRAINED, ENGINE_DIED, ServiceError, from_engine
from ramify.service.keys import Caller
from ramify.service.metrics import Metrics
from ramify.service.ports import Engines
from ramify.service.standing import not_ready
from ramify.settings import RequestCaps

LET_GO = 10.0
"""Seconds that a stopped completion may take to give up its engine work."""
CANCELLED = "the request was cancelled by its id"
ENDING = "the server ends what runs: it shuts down or reloads"
FINISHED = (None, "stop", "length", "tool_calls")


@dataclass(eq=False, slots=True)
class RunningCompletion:
    """A completion that waits to be admitted, or was admitted and has not ended."""

    key_id: str
    work: CompletionRequest
    alarm: asyncio.Timeout
    """Timeout that ends it: never, while it waits, then its deadline. Stopping brings it forward."""
    counts: dict[int, int] = field(default_factory=dict)
    """Tokens generated so far, by choice; before the end they are known of streams only."""
    stopped: ServiceError | None = None
    """Reason for which it was told to end before its deadline."""
    release: str = ""
    """The release that writes it, once it was admitted."""

    @property
    def spent(self) -> int:
        return sum(self.counts.values())

    def stop(self, reason: ServiceError) -> None:
        """End it now; its caller is told the first reason."""
        self.stopped = self.stopped or reason
        self.alarm.reschedule(asyncio.get_running_loop().time())

    def note(self, chunk: Chunk) -> None:
        """Count the tokens that a chunk, an event or a whole answer reports."""
        usage = chunk.get("usage") or chunk.get("response", {}).get("usage") or {}
        if "output_tokens" in usage:
            self.counts[0] = usage["output_tokens"]
        elif str(chunk.get("type", "")).endswith(".delta"):
            # Events before the last one give no number: each is about a token.
            self.counts[0] = self.counts.get(0, 0) + 1
        for choice in chunk.get("choices", ()):
            self.counts[choice["index"]] = usage.get("completion_tokens", 0)

    def stamped(self, reply: Chunk) -> Chunk:
        """Return vLLM's reply with the release that wrote it, if it is one that OpenAI has a field for this in."""
        return {**reply, "system_fingerprint": self.release} if "choices" in reply else reply

    def finish(self, reply: Chunk) -> None:
        """Count the tokens that a whole answer reports."""
        usage = reply["usage"]
        self.counts = {0: usage.get("completion_tokens", usage.get("output_tokens", 0))}


class CompletionStream:
    """Chunks in the order in which they are written. The engine's task fills the queue, which `max_tokens` bounds."""

    def __init__(self) -> None:
        self.life: asyncio.Task[None] | None = None
        self.queue: asyncio.Queue[Chunk | None] = asyncio.Queue()
        self._ahead: list[Chunk] = []

    async def first(self) -> None:
        """Wait for the first chunk, so that a refusal comes before anything is sent."""
        self._ahead.append(await anext(self))

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self

    async def __anext__(self) -> Chunk:
        """Return the next chunk. Raises `ServiceError` if the work failed."""
        if self._ahead:
            return self._ahead.pop()
        chunk = await self.queue.get()
        if chunk is None:
            assert self.life is not None
            await self.life
            raise StopAsyncIteration
        return chunk

    async def close(self) -> None:
        """Abort the rest of the work."""
        assert self.life is not None
        await cancel(self.life)


@dataclass(eq=False, slots=True)
class Completions:
    """Every plain completion of this server. All calls on one event loop."""

    engines: Engines
    preparer: CompletionPreparer
    limits: RequestCaps
    admission: Admission
    metrics: Metrics
    clock: Callable[[], float]
    """Seconds, monotonic."""
    running: set[RunningCompletion] = field(default_factory=set)
    queued: set[RunningCompletion] = field(default_factory=set)
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    async def complete(self, spec: CompletionSpec, caller: Caller) -> Chunk:
        """Return the whole answer in vLLM's shape. Cancelled, abort the engine's work. Raises `ServiceError`."""
        arrived = self.clock()
        work = await self._prepared(spec, caller)
        async with self._admitted(work, caller, arrived) as running:
            reply = work.counted(await self.engines.plain.complete(work.body, work.sequences))
            running.finish(reply)
            _check_finished(reply)
        return running.stamped(reply)

    async def stream(self, spec: CompletionSpec, caller: Caller) -> CompletionStream:
        """Return the answer as a stream, once it has a first chunk; the caller closes it. Raises `ServiceError`."""
        arrived = self.clock()
        work = await self._prepared(spec, caller)
        stream = CompletionStream()
        stream.life = asyncio.create_task(self._pump(stream, work, caller, arrived), name="plain-stream")
        try:
            await stream.first()
        except BaseException:
            await stream.close()
            raise
        return stream

    async def _prepared(self, spec: CompletionSpec, caller: Caller) -> CompletionRequest:
        """Refuse what cannot be taken now before any work for it, then check it."""
        if self.admission.closed:
            raise ServiceError("server_full", DRAINED, retry_after=30)
        if self.engines.dead.is_set():
            raise ServiceError("engine_unavailable", ENGINE_DIED, retry_after=30)
        self.admission.check(caller.key_id)
        with _translated():
            return await self.preparer.prepare(spec)

    async def tokenize(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return vLLM's answer to POST /tokenize. Raises `ServiceError`, as the two below do."""
        with _translated():
            return await self.engines.plain.tokenize(body)

    async def detokenize(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        with _translated():
            return await self.engines.plain.detokenize(body)

    async def tokenizer_info(self) -> Mapping[str, Any]:
        with _translated():
            return await self.engines.plain.tokenizer_info()

    def cancel(self, name: str, caller: Caller) -> int:
        """End the caller's completions under an answer's id or an `x-request-id`, and return how many there were.

        Raises `ServiceError` (`not_found`), also if they are another key's."""
        here = [*self.queued, *self.running]
        theirs = [one for one in here if one.key_id == caller.key_id and name in one.work.names]
        if not theirs:
            raise ServiceError(
                "not_found", f"nothing runs under {name[:60]!r}: it has ended, or is not yours", param="id"
            )
        for one in theirs:
            one.stop(ServiceError("cancelled", CANCELLED))
        return len(theirs)

    async def _entered(self, work: CompletionRequest, caller: Caller, patience: float) -> Ticket:
        """Wait to be admitted, for `patience` seconds at most.

        Raises `ServiceError`, `cancelled` if the wait is cancelled by id."""
        queued = RunningCompletion(caller.key_id, work, asyncio.timeout(None))
        self.queued.add(queued)
        try:
            async with queued.alarm:
                return await self.admission.enter(caller.key_id, work.tokens, patience)
        except TimeoutError:
            raise ServiceError("cancelled", CANCELLED) from None
        finally:
            self.queued.discard(queued)

    async def _pump(
        self, stream: CompletionStream, work: CompletionRequest, caller: Caller, arrived: float
    ) -> None:
        try:
            async with (
                self._admitted(work, caller, arrived) as running,
                aclosing(self.engines.plain.stream(work.body, work.sequences)) as chunks,
            ):
                async for counted in chunks:
                    chunk = work.counted(counted)
                    running.note(chunk)
                    self.admission.standing.require_answerable()
                    _check_finished(chunk)
                    stream.queue.put_nowait(running.stamped(chunk))
        finally:
            stream.queue.put_nowait(None)

    async def drain(self, grace: float) -> None:
        """Let completions run for `grace` seconds, then end them. The drain of searches closes admission."""
        await self._until_idle(grace)
        self.stop_all()
        await self._until_idle(LET_GO)

    def stop_all(self) -> None:
        """End everything that runs, as the server shuts down or reloads."""
        for running in self.running:
            running.stop(ServiceError("server_full", ENDING, retry_after=5))

    def lapse(self, why: str) -> None:
        """End everything that runs, as this server may not answer it any more."""
        for running in self.running:
            running.stop(not_ready(why))

    async def _until_idle(self, seconds: float) -> None:
        while self.running:
            self._idle.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._idle.wait()
            except TimeoutError:
                return

    @asynccontextmanager
    async def _admitted(
        self, work: CompletionRequest, caller: Caller, arrived: float
    ) -> AsyncIterator[RunningCompletion]:
        """Surround one request's engine work with its reservation, its deadline and the translation of its errors."""
        due = arrived + self.limits.deadline_seconds
        ticket = await self._entered(work, caller, due - self.clock())
        alarm = asyncio.timeout(max(0.0, due - self.clock()))
        running = RunningCompletion(caller.key_id, work, alarm)
        self.running.add(running)
        outcome = "failed"
        try:
            with _translated(running), self.engines.lease() as serving:
                running.release = serving.release
                async with running.alarm:
                    yield running
                self.admission.standing.require_answerable()
            outcome = "complete"
        except (asyncio.CancelledError, GeneratorExit):
            outcome = "cancelled"
            raise
        finally:
            self.running.discard(running)
            if not self.running:
                self._idle.set()
            try:
                self.admission.leave(ticket)
            finally:
                self.metrics.completed(work.route, outcome, running.spent)


@contextmanager
def _translated(running: RunningCompletion | None = None) -> Iterator[None]:
    """Translate errors of engines and deadlines into the service's."""
    try:
        yield
    except (EngineDead, EngineError, TimeoutError) as error:
        raise _problem(error, running) from error


def _problem(error: Exception, running: RunningCompletion | None) -> ServiceError:
    if isinstance(error, TimeoutError):
        stopped = running and running.stopped
        return stopped or ServiceError("no_answer", "the deadline came before the answer was complete")
    return from_engine(error, "policy") or ServiceError("generation_failed", str(error)[:500])


def _check_finished(reply: Chunk) -> None:
    """Raise `ServiceError` if the engine threw the answer away, as it does when its weights are replaced."""
    if any(choice.get("finish_reason") not in FINISHED for choice in reply.get("choices", ())):
        raise ServiceError("server_full", "the engine gave the answer up unfinished", retry_after=1)
