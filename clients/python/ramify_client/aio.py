"""The asynchronous client: the transport, and a method for each call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar, Unpack

import httpx

from ramify_client import calls, results
from ramify_client.calls import AnswerOptions, BatchOptions, BranchOptions, Call, Parsed, SearchOptions, Text
from ramify_client.configuration import DEFAULT_TIMEOUT, LARGEST_ANSWER, Configuration
from ramify_client.errors import (
    ConnectionFailed,
    InvalidAnswer,
    RamifyError,
    RequestTimeout,
    error_of,
    translating,
)
from ramify_client.retries import Attempts
from ramify_client.streaming import EventReader, LogReader

Done = TypeVar("Done")


class AsyncClient:
    """A Ramify server.

    base_url, api_key: by default `RAMIFY_BASE_URL` and `RAMIFY_API_KEY`; an empty key sends none. timeout: seconds
    that one call may take, retries and waits included. max_retries: further tries of calls that may be repeated; a
    search may, since it carries an Idempotency-Key. configuration: in place of all four. All methods raise
    `RamifyError` only, except for arguments that no request can be made of (`ValueError`, `TypeError`).
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        max_retries: int = 2,
        transport: httpx.AsyncBaseTransport | None = None,
        configuration: Configuration | None = None,
    ) -> None:
        self.configuration = configuration or Configuration.of(base_url, api_key, timeout, max_retries)
        self._http = httpx.AsyncClient(
            base_url=self.configuration.base_url, headers=self.configuration.headers, transport=transport
        )
        self.trees = AsyncTrees(self)
        self.consumers = AsyncConsumers(self)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def search(
        self, prompt: str | None = None, *, timeout: float | None = None, **options: Unpack[SearchOptions]
    ) -> results.SearchResult:
        """Search, for a `prompt` or for `messages`, and return the best answer of the tree."""
        return await self.send(calls.search(prompt, **options), timeout)

    @asynccontextmanager
    async def stream(
        self, prompt: str | None = None, *, timeout: float | None = None, **options: Unpack[SearchOptions]
    ) -> AsyncIterator[AsyncSearchStream]:
        """Search, and yield the events while it runs; the last one is `completed`. Leaving the block before that ends
        the search on the server. Tried again until the server has accepted it, and then no more."""
        call = calls.search(prompt, stream=True, **options)
        async with self._streaming(call, timeout) as events:
            yield events

    async def get_search(self, search_id: str) -> results.SearchResult:
        """Return a search's state: its best answer so far, or how it ended."""
        return await self.send(calls.get_search(search_id))

    @asynccontextmanager
    async def follow(
        self, search_id: str, *, timeout: float | None = None
    ) -> AsyncIterator[AsyncSearchStream]:
        """Yield the events of a search that another request began, from now on, as `stream` does; of one that has
        ended, the first and the last. Leaving the block leaves the search running."""
        async with self._streaming(calls.get_search(search_id, stream=True), timeout) as events:
            events.id = search_id
            yield events

    async def cancel(self, search_id: str) -> results.SearchResult:
        """End a search now; return its best answer so far."""
        return await self.send(calls.cancel(search_id))

    async def continue_search(
        self,
        search_id: str,
        budget: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        **options: Unpack[AnswerOptions],
    ) -> results.SearchResult:
        """Let a search that has ended, or was interrupted by the end of its server, go on exactly where it was; the
        result is a new search's. budget: limits of the whole, larger than what is spent; None: those that it had."""
        return await self.send(calls.continue_search(search_id, budget, **options), timeout)

    @asynccontextmanager
    async def stream_continued(
        self,
        search_id: str,
        budget: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        **options: Unpack[AnswerOptions],
    ) -> AsyncIterator[AsyncSearchStream]:
        """Let a search go on as `continue_search` does, and yield the events as `stream` does."""
        call = calls.continue_search(search_id, budget, stream=True, **options)
        async with self._streaming(call, timeout) as events:
            yield events

    async def search_batch(
        self,
        prompts: Sequence[str | Mapping[str, Any]],
        budget: Mapping[str, Any],
        *,
        timeout: float | None = None,
        **options: Unpack[BatchOptions],
    ) -> results.BatchResult:
        """Search several prompts on one budget, which goes where it is expected to bring most. prompts: texts, or
        mappings with `prompt` or `messages`, and `task`. budget: `tokens`, `seconds` or both."""
        return await self.send(calls.search_batch(prompts, budget, **options), timeout)

    @asynccontextmanager
    async def stream_batch(
        self,
        prompts: Sequence[str | Mapping[str, Any]],
        budget: Mapping[str, Any],
        *,
        timeout: float | None = None,
        **options: Unpack[BatchOptions],
    ) -> AsyncIterator[AsyncBatchStream]:
        """Search as `search_batch` does, and yield the events as `stream` does: each prompt's `answered` comes as soon
        as it is settled, with its `index`; the last one is `completed`."""
        call = calls.search_batch(prompts, budget, stream=True, **options)
        async with self._accepted(call, timeout) as (response, attempts):
            yield AsyncBatchStream(self, response, attempts)

    async def cancel_batch(self, batch_id: str) -> results.BatchResult:
        """End every search of a batch now; return their best answers so far."""
        return await self.send(calls.cancel_batch(batch_id))

    async def value(
        self, prompt: Text, continuations: Sequence[Text], *, model: str | None = None
    ) -> results.Values:
        """Score answers, finished or not, by the value model."""
        return await self.send(calls.value(prompt, continuations, model))

    async def models(self) -> results.Listing[results.Model]:
        """List the models that are served."""
        return await self.send(calls.models())

    async def model(self, name: str) -> results.Model:
        """Return one model of those served."""
        return await self.send(calls.model(name))

    async def releases(self) -> results.Releases:
        """List the releases, and which one is active; the key needs the scope `log`."""
        return await self.send(calls.public_releases())

    async def version(self) -> results.Version:
        """Return the server's version, model and release."""
        return await self.send(calls.version())

    async def ready(self) -> bool:
        """Tell whether the server can search now; False also if nobody listens."""
        try:
            await self.send(calls.ready(), timeout=30.0)
        except RamifyError:
            return False
        return True

    # How a call is sent

    async def send(self, call: Call[Parsed], timeout: float | None = None) -> Parsed:
        """Send a call, again if that may help, and read its answer."""
        return await self._trying(call, timeout, self._answered)

    async def _trying(
        self,
        call: Call[Parsed],
        timeout: float | None,
        attempt: Callable[[Call[Parsed], Attempts], Awaitable[Done]],
    ) -> Done:
        attempts = self._attempts(call, timeout)
        while True:
            try:
                async with asyncio.timeout(attempts.begin()):
                    return await attempt(call, attempts)
            except TimeoutError as error:
                raise RequestTimeout(f"no answer in {attempts.seconds:g} s") from error
            except RamifyError as error:
                wait = attempts.wait(error)
                if wait is None:
                    raise
            await asyncio.sleep(wait)

    async def _answered(self, call: Call[Parsed], attempts: Attempts) -> Parsed:
        response = await self._opened(call, attempts)
        try:
            return call.parse(await _body(response))
        finally:
            await response.aclose()

    async def _opened(self, call: Call[Any], attempts: Attempts) -> httpx.Response:
        """Return the answer to a call, its body still to be read. Raises the error that its status stands for."""
        with translating(self.configuration.base_url):
            request = self._http.build_request(
                call.method,
                call.path,
                json=call.json,
                params=call.params,
                headers=call.headers,
                timeout=self.configuration.waits(attempts.left()),
            )
            response = await self._http.send(request, stream=True)
        if response.is_success:
            return response
        try:
            raise error_of(response.status_code, response.headers, await _body(response))
        finally:
            await response.aclose()

    @asynccontextmanager
    async def _streaming(self, call: Call[Any], timeout: float | None) -> AsyncIterator[AsyncSearchStream]:
        async with self._accepted(call, timeout) as (response, attempts):
            yield AsyncSearchStream(self, response, attempts)

    @asynccontextmanager
    async def _accepted(
        self, call: Call[Any], timeout: float | None
    ) -> AsyncIterator[tuple[httpx.Response, Attempts]]:
        attempts = self._attempts(call, timeout)
        response = await self._trying(call, timeout, self._opened)
        try:
            yield response, attempts
        finally:
            await response.aclose()

    def _attempts(self, call: Call[Any], timeout: float | None) -> Attempts:
        seconds = self.configuration.timeout if timeout is None else timeout
        return Attempts(self.configuration.max_retries, call.repeatable, seconds)


class _AsyncEventStream:
    """Events, to be iterated over once."""

    def __init__(self, client: AsyncClient, response: httpx.Response, attempts: Attempts) -> None:
        self._client, self._response, self._attempts = client, response, attempts
        self.id: str | None = None
        """The id of the search or the batch; None before its first event, unless it was followed by its id."""

    def __aiter__(self) -> AsyncIterator[results.SearchEvent]:
        return self._events()

    async def _events(self) -> AsyncIterator[results.SearchEvent]:
        reader = EventReader()
        async with aclosing(_chunks(self._response)) as chunks:
            async for chunk in chunks:
                for event in reader.feed(chunk):
                    self.id = self.id or event.id
                    yield event
                if reader.completed:
                    return
                self._attempts.left()
        raise ConnectionFailed("the stream ended before the search did")


class AsyncSearchStream(_AsyncEventStream):
    """The events of one search, to be iterated over once."""

    async def cancel(self) -> results.SearchResult | None:
        """End the search now; its best answer so far, which `completed` brings too. If its id is not known yet, the
        connection is closed in place of that, and None returned."""
        if self.id is None:
            await self._response.aclose()
            return None
        return await self._client.cancel(self.id)


class AsyncBatchStream(_AsyncEventStream):
    """The events of a batch, to be iterated over once."""

    async def cancel(self) -> results.BatchResult | None:
        """End every search now; their best answers so far, which `completed` brings too. If its id is not known yet,
        the connection is closed in place of that, and None returned."""
        if self.id is None:
            await self._response.aclose()
            return None
        return await self._client.cancel_batch(self.id)


async def _chunks(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    with translating():
        async for chunk in response.aiter_bytes():
            yield chunk


async def _body(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in _chunks(response):
        body += chunk
        if len(body) > LARGEST_ANSWER:
            raise InvalidAnswer(f"the answer is longer than {LARGEST_ANSWER} bytes")
    return bytes(body)


class AsyncTrees:
    """The log of searched trees."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def list(self, *, before: int | None = None, limit: int = 50, **filters: Any) -> results.TreePage:
        """List trees, newest first. filters: `id` (how it starts), `status`, `model`, `release`, `algorithm`, `task`,
        `key`, `min_value`, `text`, `min_nodes`, `outcome`."""
        return await self._client.send(calls.list_trees(before, limit, filters))

    async def get(self, tree_id: str) -> results.LoggedTree:
        return await self._client.send(calls.get_tree(tree_id))

    async def read(self, after: int = 0, *, limit: int | None = None) -> AsyncIterator[results.LogRecord]:
        """Yield the records with a `seq` above `after`, in order, to the log's end as it is now. If the connection
        breaks, go on after the last whole record. The client's `timeout` is for each wait for the server."""
        reader = LogReader(after, limit, self._client.configuration.max_retries)
        while not reader.full:
            try:
                async with aclosing(self._records(reader)) as records:
                    async for record in records:
                        yield record
                return
            except RamifyError as error:
                wait = reader.wait(error, self._client.configuration.timeout)
                if wait is None:
                    raise
            await asyncio.sleep(wait)

    async def _records(self, reader: LogReader) -> AsyncGenerator[results.LogRecord, None]:
        call = reader.call()
        response = await self._client._opened(call, self._client._attempts(call, None))
        try:
            async with aclosing(_chunks(response)) as chunks:
                async for chunk in chunks:
                    for record in reader.feed(call, chunk):
                        yield record
            reader.end()
        finally:
            await response.aclose()

    async def branch(
        self, tree_id: str, node: int, *, timeout: float | None = None, **options: Unpack[BranchOptions]
    ) -> results.SearchResult:
        """Search on from a node of a logged tree; the result is a new tree's."""
        return await self._client.send(calls.branch(tree_id, node, **options), timeout)

    @asynccontextmanager
    async def stream_branch(
        self, tree_id: str, node: int, *, timeout: float | None = None, **options: Unpack[BranchOptions]
    ) -> AsyncIterator[AsyncSearchStream]:
        """Search on from a node, and yield the events as `stream` does."""
        call = calls.branch(tree_id, node, stream=True, **options)
        async with self._client._streaming(call, timeout) as events:
            yield events

    async def dot(self, tree_id: str) -> str:
        """Return the tree as a graph for Graphviz."""
        return await self._client.send(calls.dot(tree_id))

    async def delete(self, tree_id: str) -> None:
        await self._client.send(calls.delete_tree(tree_id))

    async def feedback(self, tree_id: str, outcome: float, **options: Any) -> results.Feedback:
        """Give a verdict in [0, 1] on an answer: the chosen one, or that of `node` or `answer`. options: also
        `source`, `comment`."""
        return await self._client.send(calls.feedback(tree_id, outcome, **options))


class AsyncConsumers:
    """Readers of the log."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def list(self) -> list[results.Consumer]:
        """List the registered readers, by name."""
        return (await self._client.send(calls.list_consumers())).data

    async def delete(self, name: str) -> None:
        """Forget a reader that is gone. Raises `Conflict` while it is leased."""
        await self._client.send(calls.delete_consumer(name))

    async def get(self, name: str) -> results.Consumer:
        return await self._client.send(calls.get_consumer(name))

    async def put(
        self,
        name: str,
        *,
        version: int | None = None,
        cursor: int | None = None,
        owner: str | None = None,
        lease_seconds: float | None = None,
        rewind: bool | None = None,
    ) -> results.Consumer:
        """Register a reader, or change the one last seen at `version`; `rewind` lets its cursor go back. Raises
        `Conflict` if somebody else was faster or holds the lease."""
        changes = {"cursor": cursor, "owner": owner, "lease_seconds": lease_seconds, "rewind": rewind}
        call = calls.put_consumer(name, version, **changes)
        return await self._client.send(call)


class AsyncAdmin:
    """A server's admin listener: its releases. base_url, key: by default `RAMIFY_ADMIN_URL` and
    `RAMIFY_ADMIN__KEY`."""

    def __init__(
        self,
        base_url: str | None = None,
        key: str | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        max_retries: int = 2,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        configuration = Configuration.of_admin(base_url, key, timeout, max_retries)
        self._client = AsyncClient(configuration=configuration, transport=transport)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def __aenter__(self) -> AsyncAdmin:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def releases(self) -> results.Releases:
        """List the releases, and which one is active."""
        return await self._client.send(calls.releases())

    async def record(self, release: str, state: str, figures: Mapping[str, Any]) -> None:
        """Record a gate's decision: `candidate`, `promoted` or `rejected`, with its figures."""
        await self._client.send(calls.record_release(release, state, figures))

    async def activate(
        self, release: str, *, deadline_seconds: float = 30.0, note: str = "", mode: str | None = None
    ) -> results.Activation:
        """Serve a release from now on, in a fleet on every replica: `rolling` (the default there) or `barrier`. Raises
        `Conflict` if it was refused or its canary failed; the one before stays served then."""
        return await self._client.send(calls.activate(release, deadline_seconds, note, mode))

    async def rollback(
        self, *, deadline_seconds: float = 30.0, note: str = "", mode: str | None = None
    ) -> results.Activation:
        """Serve the release that was active before."""
        return await self._client.send(calls.rollback(deadline_seconds, note, mode))

    async def fleet(self) -> results.Fleet:
        """Return the fleet that the server belongs to. Raises `NotFound` if it is in none."""
        return await self._client.send(calls.fleet())

    async def restore(self, replica: str) -> results.Fleet:
        """Take an evicted replica back. Raises `NotFound` if none of this id is evicted."""
        return await self._client.send(calls.restore(replica))

    async def drain(self, *, deadline_seconds: float = 20.0) -> None:
        """Take no more searches, and return when the running ones have ended."""
        await self._client.send(calls.drain(deadline_seconds))
