"""The synchronous client: the transport, and a method for each call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, Unpack

import httpx

from ramify_client import calls, results
from ramify_client.calls import AnswerOptions, BatchOptions, BranchOptions, Call, Parsed, SearchOptions, Text
from ramify_client.configuration import DEFAULT_TIMEOUT, LARGEST_ANSWER, Configuration
from ramify_client.errors import (
    ConnectionFailed,
    InvalidAnswer,
    RamifyError,
    error_of,
    translating,
)
from ramify_client.retries import Attempts
from ramify_client.streaming import EventReader, LogReader

Done = TypeVar("Done")


class Client:
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
        transport: httpx.BaseTransport | None = None,
        configuration: Configuration | None = None,
    ) -> None:
        self.configuration = configuration or Configuration.of(base_url, api_key, timeout, max_retries)
        self._http = httpx.Client(
            base_url=self.configuration.base_url, headers=self.configuration.headers, transport=transport
        )
        self.trees = Trees(self)
        self.consumers = Consumers(self)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def search(
        self, prompt: str | None = None, *, timeout: float | None = None, **options: Unpack[SearchOptions]
    ) -> results.SearchResult:
        """Search, for a `prompt` or for `messages`, and return the best answer of the tree."""
        return self.send(calls.search(prompt, **options), timeout)

    @contextmanager
    def stream(
        self, prompt: str | None = None, *, timeout: float | None = None, **options: Unpack[SearchOptions]
    ) -> Iterator[SearchStream]:
        """Search, and yield the events while it runs; the last one is `completed`. Leaving the block before that ends
        the search on the server. Tried again until the server has accepted it, and then no more."""
        call = calls.search(prompt, stream=True, **options)
        with self._streaming(call, timeout) as events:
            yield events

    def get_search(self, search_id: str) -> results.SearchResult:
        """Return a search's state: its best answer so far, or how it ended."""
        return self.send(calls.get_search(search_id))

    @contextmanager
    def follow(self, search_id: str, *, timeout: float | None = None) -> Iterator[SearchStream]:
        """Yield the events of a search that another request began, from now on, as `stream` does; of one that has
        ended, the first and the last. Leaving the block leaves the search running."""
        with self._streaming(calls.get_search(search_id, stream=True), timeout) as events:
            events.id = search_id
            yield events

    def cancel(self, search_id: str) -> results.SearchResult:
        """End a search now; return its best answer so far."""
        return self.send(calls.cancel(search_id))

    def continue_search(
        self,
        search_id: str,
        budget: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        **options: Unpack[AnswerOptions],
    ) -> results.SearchResult:
        """Let a search that has ended, or was interrupted by the end of its server, go on exactly where it was; the
        result is a new search's. budget: limits of the whole, larger than what is spent; None: those that it had."""
        return self.send(calls.continue_search(search_id, budget, **options), timeout)

    @contextmanager
    def stream_continued(
        self,
        search_id: str,
        budget: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        **options: Unpack[AnswerOptions],
    ) -> Iterator[SearchStream]:
        """Let a search go on as `continue_search` does, and yield the events as `stream` does."""
        call = calls.continue_search(search_id, budget, stream=True, **options)
        with self._streaming(call, timeout) as events:
            yield events

    def search_batch(
        self,
        prompts: Sequence[str | Mapping[str, Any]],
        budget: Mapping[str, Any],
        *,
        timeout: float | None = None,
        **options: Unpack[BatchOptions],
    ) -> results.BatchResult:
        """Search several prompts on one budget, which goes where it is expected to bring most. prompts: texts, or
        mappings with `prompt` or `messages`, and `task`. budget: `tokens`, `seconds` or both."""
        return self.send(calls.search_batch(prompts, budget, **options), timeout)

    @contextmanager
    def stream_batch(
        self,
        prompts: Sequence[str | Mapping[str, Any]],
        budget: Mapping[str, Any],
        *,
        timeout: float | None = None,
        **options: Unpack[BatchOptions],
    ) -> Iterator[BatchStream]:
        """Search as `search_batch` does, and yield the events as `stream` does: each prompt's `answered` comes as soon
        as it is settled, with its `index`; the last one is `completed`."""
        call = calls.search_batch(prompts, budget, stream=True, **options)
        with self._accepted(call, timeout) as (response, attempts):
            yield BatchStream(self, response, attempts)

    def cancel_batch(self, batch_id: str) -> results.BatchResult:
        """End every search of a batch now; return their best answers so far."""
        return self.send(calls.cancel_batch(batch_id))

    def value(
        self, prompt: Text, continuations: Sequence[Text], *, model: str | None = None
    ) -> results.Values:
        """Score answers, finished or not, by the value model."""
        return self.send(calls.value(prompt, continuations, model))

    def models(self) -> results.Listing[results.Model]:
        """List the models that are served."""
        return self.send(calls.models())

    def model(self, name: str) -> results.Model:
        """Return one model of those served."""
        return self.send(calls.model(name))

    def releases(self) -> results.Releases:
        """List the releases, and which one is active; the key needs the scope `log`."""
        return self.send(calls.public_releases())

    def version(self) -> results.Version:
        """Return the server's version, model and release."""
        return self.send(calls.version())

    def ready(self) -> bool:
        """Tell whether the server can search now; False also if nobody listens."""
        try:
            self.send(calls.ready(), timeout=30.0)
        except RamifyError:
            return False
        return True

    # How a call is sent

    def send(self, call: Call[Parsed], timeout: float | None = None) -> Parsed:
        """Send a call, again if that may help, and read its answer."""
        return self._trying(call, timeout, self._answered)

    def _trying(
        self,
        call: Call[Parsed],
        timeout: float | None,
        attempt: Callable[[Call[Parsed], Attempts], Done],
    ) -> Done:
        attempts = self._attempts(call, timeout)
        while True:
            try:
                attempts.begin()
                return attempt(call, attempts)
            except RamifyError as error:
                wait = attempts.wait(error)
                if wait is None:
                    raise
            time.sleep(wait)

    def _answered(self, call: Call[Parsed], attempts: Attempts) -> Parsed:
        response = self._opened(call, attempts)
        try:
            return call.parse(_body(response, attempts))
        finally:
            response.close()

    def _opened(self, call: Call[Any], attempts: Attempts) -> httpx.Response:
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
            response = self._http.send(request, stream=True)
        if response.is_success:
            return response
        try:
            raise error_of(response.status_code, response.headers, _body(response, attempts))
        finally:
            response.close()

    @contextmanager
    def _streaming(self, call: Call[Any], timeout: float | None) -> Iterator[SearchStream]:
        with self._accepted(call, timeout) as (response, attempts):
            yield SearchStream(self, response, attempts)

    @contextmanager
    def _accepted(self, call: Call[Any], timeout: float | None) -> Iterator[tuple[httpx.Response, Attempts]]:
        attempts = self._attempts(call, timeout)
        response = self._trying(call, timeout, self._opened)
        try:
            yield response, attempts
        finally:
            response.close()

    def _attempts(self, call: Call[Any], timeout: float | None) -> Attempts:
        seconds = self.configuration.timeout if timeout is None else timeout
        return Attempts(self.configuration.max_retries, call.repeatable, seconds)


class _EventStream:
    """Events, to be iterated over once."""

    def __init__(self, client: Client, response: httpx.Response, attempts: Attempts) -> None:
        self._client, self._response, self._attempts = client, response, attempts
        self.id: str | None = None
        """The id of the search or the batch; None before its first event, unless it was followed by its id."""

    def __iter__(self) -> Iterator[results.SearchEvent]:
        return self._events()

    def _events(self) -> Iterator[results.SearchEvent]:
        reader = EventReader()
        for chunk in _chunks(self._response):
            for event in reader.feed(chunk):
                self.id = self.id or event.id
                yield event
            if reader.completed:
                return
            self._attempts.left()
        raise ConnectionFailed("the stream ended before the search did")


class SearchStream(_EventStream):
    """The events of one search, to be iterated over once."""

    def cancel(self) -> results.SearchResult | None:
        """End the search now; its best answer so far, which `completed` brings too. If its id is not known yet, the
        connection is closed in place of that, and None returned."""
        if self.id is None:
            self._response.close()
            return None
        return self._client.cancel(self.id)


class BatchStream(_EventStream):
    """The events of a batch, to be iterated over once."""

    def cancel(self) -> results.BatchResult | None:
        """End every search now; their best answers so far, which `completed` brings too. If its id is not known yet,
        the connection is closed in place of that, and None returned."""
        if self.id is None:
            self._response.close()
            return None
        return self._client.cancel_batch(self.id)


def _chunks(response: httpx.Response) -> Iterator[bytes]:
    with translating():
        yield from response.iter_bytes()


def _body(response: httpx.Response, attempts: Attempts) -> bytes:
    body = bytearray()
    for chunk in _chunks(response):
        attempts.left()
        body += chunk
        if len(body) > LARGEST_ANSWER:
            raise InvalidAnswer(f"the answer is longer than {LARGEST_ANSWER} bytes")
    return bytes(body)


class Trees:
    """The log of searched trees."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self, *, before: int | None = None, limit: int = 50, **filters: Any) -> results.TreePage:
        """List trees, newest first. filters: `id` (how it starts), `status`, `model`, `release`, `algorithm`, `task`,
        `key`, `min_value`, `text`, `min_nodes`, `outcome`."""
        return self._client.send(calls.list_trees(before, limit, filters))

    def get(self, tree_id: str) -> results.LoggedTree:
        return self._client.send(calls.get_tree(tree_id))

    def read(self, after: int = 0, *, limit: int | None = None) -> Iterator[results.LogRecord]:
        """Yield the records with a `seq` above `after`, in order, to the log's end as it is now. If the connection
        breaks, go on after the last whole record. The client's `timeout` is for each wait for the server."""
        reader = LogReader(after, limit, self._client.configuration.max_retries)
        while not reader.full:
            try:
                yield from self._records(reader)
                return
            except RamifyError as error:
                wait = reader.wait(error, self._client.configuration.timeout)
                if wait is None:
                    raise
            time.sleep(wait)

    def _records(self, reader: LogReader) -> Iterator[results.LogRecord]:
        call = reader.call()
        response = self._client._opened(call, self._client._attempts(call, None))
        try:
            for chunk in _chunks(response):
                yield from reader.feed(call, chunk)
            reader.end()
        finally:
            response.close()

    def branch(
        self, tree_id: str, node: int, *, timeout: float | None = None, **options: Unpack[BranchOptions]
    ) -> results.SearchResult:
        """Search on from a node of a logged tree; the result is a new tree's."""
        return self._client.send(calls.branch(tree_id, node, **options), timeout)

    @contextmanager
    def stream_branch(
        self, tree_id: str, node: int, *, timeout: float | None = None, **options: Unpack[BranchOptions]
    ) -> Iterator[SearchStream]:
        """Search on from a node, and yield the events as `stream` does."""
        call = calls.branch(tree_id, node, stream=True, **options)
        with self._client._streaming(call, timeout) as events:
            yield events

    def dot(self, tree_id: str) -> str:
        """Return the tree as a graph for Graphviz."""
        return self._client.send(calls.dot(tree_id))

    def delete(self, tree_id: str) -> None:
        self._client.send(calls.delete_tree(tree_id))

    def feedback(self, tree_id: str, outcome: float, **options: Any) -> results.Feedback:
        """Give a verdict in [0, 1] on an answer: the chosen one, or that of `node` or `answer`. options: also
        `source`, `comment`."""
        return self._client.send(calls.feedback(tree_id, outcome, **options))


class Consumers:
    """Readers of the log."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self) -> list[results.Consumer]:
        """List the registered readers, by name."""
        return (self._client.send(calls.list_consumers())).data

    def delete(self, name: str) -> None:
        """Forget a reader that is gone. Raises `Conflict` while it is leased."""
        self._client.send(calls.delete_consumer(name))

    def get(self, name: str) -> results.Consumer:
        return self._client.send(calls.get_consumer(name))

    def put(
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
        return self._client.send(call)


class Admin:
    """A server's admin listener: its releases. base_url, key: by default `RAMIFY_ADMIN_URL` and
    `RAMIFY_ADMIN__KEY`."""

    def __init__(
        self,
        base_url: str | None = None,
        key: str | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        max_retries: int = 2,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        configuration = Configuration.of_admin(base_url, key, timeout, max_retries)
        self._client = Client(configuration=configuration, transport=transport)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> Admin:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def releases(self) -> results.Releases:
        """List the releases, and which one is active."""
        return self._client.send(calls.releases())

    def record(self, release: str, state: str, figures: Mapping[str, Any]) -> None:
        """Record a gate's decision: `candidate`, `promoted` or `rejected`, with its figures."""
        self._client.send(calls.record_release(release, state, figures))

    def activate(
        self, release: str, *, deadline_seconds: float = 30.0, note: str = "", mode: str | None = None
    ) -> results.Activation:
        """Serve a release from now on, in a fleet on every replica: `rolling` (the default there) or `barrier`. Raises
        `Conflict` if it was refused or its canary failed; the one before stays served then."""
        return self._client.send(calls.activate(release, deadline_seconds, note, mode))

    def rollback(
        self, *, deadline_seconds: float = 30.0, note: str = "", mode: str | None = None
    ) -> results.Activation:
        """Serve the release that was active before."""
        return self._client.send(calls.rollback(deadline_seconds, note, mode))

    def fleet(self) -> results.Fleet:
        """Return the fleet that the server belongs to. Raises `NotFound` if it is in none."""
        return self._client.send(calls.fleet())

    def restore(self, replica: str) -> results.Fleet:
        """Take an evicted replica back. Raises `NotFound` if none of this id is evicted."""
        return self._client.send(calls.restore(replica))

    def drain(self, *, deadline_seconds: float = 20.0) -> None:
        """Take no more searches, and return when the running ones have ended."""
        self._client.send(calls.drain(deadline_seconds))
