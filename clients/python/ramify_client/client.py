"""The client."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx

from ramify_client import calls, results
from ramify_client.calls import Call, Message, Parsed, Text
from ramify_client.configuration import DEFAULT_TIMEOUT, Configuration
from ramify_client.errors import ConnectionFailed, RamifyError, RequestTimeout, error_of, translated
from ramify_client.events import Reader

FOREIGN = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError)
"""What httpx raises. Every one is translated where it is raised; nothing of httpx's leaves this package."""


class Client:
    """A Ramify server.

    base_url, api_key: `RAMIFY_BASE_URL` and `RAMIFY_API_KEY` where they are not given. timeout: seconds that one call
    may take, retries and waits included. max_retries: further tries of calls that may be repeated; a search may, since
    it carries an Idempotency-Key. configuration: in place of all four. All methods raise `RamifyError` only.
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
        self,
        prompt: Text | None = None,
        *,
        messages: Sequence[Message] | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> results.SearchResult:
        """The best answer of a tree. options: `task`, `search`, `sampling`, `model`, `n`, `seed`, `train`,
        `include_tree`, `deadline`, as `POST /v1/search` takes them."""
        call = calls.search(prompt, messages, idempotency_key=idempotency_key, **options)
        return self.send(call, timeout)

    @contextmanager
    def stream(
        self,
        prompt: Text | None = None,
        *,
        messages: Sequence[Message] | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Iterator[Iterator[results.SearchEvent]]:
        """The same, as events while it runs; the last one is `completed`. Leaving the block before that ends the
        search on the server. Not tried again."""
        call = calls.search(prompt, messages, idempotency_key=idempotency_key, stream=True, **options)
        with self._open(call, self._deadline(timeout)) as response:
            yield self._events(response)

    def get_search(self, search_id: str) -> results.SearchResult:
        """A search's state: its best answer so far, or how it ended."""
        return self.send(calls.get_search(search_id))

    def cancel(self, search_id: str) -> results.SearchResult:
        """End a search now; its best answer so far."""
        return self.send(calls.cancel(search_id))

    def value(
        self, prompt: Text, continuations: Sequence[Text], *, model: str | None = None
    ) -> results.Values:
        """The value model's judgement of answers, finished or not."""
        return self.send(calls.value(prompt, continuations, model))

    def models(self) -> results.Models:
        """What is served."""
        return self.send(calls.models())

    def version(self) -> results.Version:
        """The server's version, model and release."""
        return self.send(calls.version())

    def ready(self) -> bool:
        """Whether the server can search now; False also where nobody listens."""
        try:
            self.send(calls.ready(), timeout=30.0)
        except RamifyError:
            return False
        return True

    # How a call is sent

    def send(self, call: Call[Parsed], timeout: float | None = None) -> Parsed:
        """Send a call, again where that may help, and read its answer."""
        deadline = self._deadline(timeout)
        tried = 0
        while True:
            tried += 1
            try:
                return call.parse(self._once(call, deadline))
            except RamifyError as error:
                left = deadline - time.monotonic()
                wait = self.configuration.retries.wait(error, tried, call.repeatable, left)
                if wait is None:
                    raise
            time.sleep(wait)

    def _once(self, call: Call[Any], deadline: float) -> bytes:
        with self._open(call, deadline) as response:
            try:
                return response.read()
            except FOREIGN as error:
                raise translated(error) from error

    @contextmanager
    def _open(self, call: Call[Any], deadline: float) -> Iterator[httpx.Response]:
        """The answer to a call, its body still to be read. Raises the error that its status stands for."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise RequestTimeout("the call's time was over before it was sent")
        request = self._http.build_request(
            call.method,
            call.path,
            json=call.json,
            params=call.params,
            headers=call.headers,
            timeout=self.configuration.waits(left),
        )
        try:
            response = self._http.send(request, stream=True)
        except FOREIGN as error:
            raise translated(error) from error
        try:
            if response.is_error:
                raise error_of(response.status_code, response.headers, _body(response))
            yield response
        finally:
            response.close()

    def _events(self, response: httpx.Response) -> Iterator[results.SearchEvent]:
        reader = Reader()
        try:
            for chunk in response.iter_bytes():
                yield from reader.feed(chunk)
        except FOREIGN as error:
            raise translated(error) from error
        if not reader.completed:
            raise ConnectionFailed("the stream ended before the search did")

    def _deadline(self, timeout: float | None) -> float:
        return time.monotonic() + (self.configuration.timeout if timeout is None else timeout)


def _body(response: httpx.Response) -> bytes:
    try:
        return response.read()
    except FOREIGN as error:
        raise translated(error) from error


class Trees:
    """The log."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self, *, before: int | None = None, limit: int = 50, **filters: Any) -> results.TreePage:
        """Newest first. filters: `status`, `model`, `release`, `algorithm`, `task`, `key`, `min_value`, `text`."""
        return self._client.send(calls.list_trees(before, limit, filters))

    def get(self, tree_id: str) -> results.LoggedTree:
        return self._client.send(calls.get_tree(tree_id))

    def read(self, after: int = 0, *, limit: int | None = None) -> Iterator[results.LogRecord]:
        """Trees and later verdicts with a greater `seq`, in order, to the log's end as it is now. Where the connection
        breaks it goes on after the last whole record."""
        tried = 0
        while True:
            call = calls.read_trees(after, limit)
            try:
                for record in self._lines(call):
                    after, tried = record.seq, 0
                    limit = None if limit is None else limit - 1
                    yield record
            except RamifyError as error:
                tried += 1
                wait = self._client.configuration.retries.wait(
                    error, tried, True, self._client.configuration.timeout
                )
                if wait is None:
                    raise
                time.sleep(wait)
            else:
                return
            if limit == 0:
                return

    def _lines(self, call: Call[results.LogRecord]) -> Iterator[results.LogRecord]:
        with self._client._open(call, self._client._deadline(None)) as response:
            try:
                for line in response.iter_lines():
                    yield call.parse(line.encode())
            except FOREIGN as error:
                raise translated(error) from error

    def dot(self, tree_id: str) -> str:
        """The tree for Graphviz."""
        return self._client.send(calls.dot(tree_id))

    def delete(self, tree_id: str) -> None:
        self._client.send(calls.delete_tree(tree_id))

    def feedback(self, tree_id: str, outcome: float, **options: Any) -> results.Feedback:
        """A verdict in [0, 1] on an answer: the chosen one, or that of `node` or `answer`. options: also `source`,
        `comment`."""
        return self._client.send(calls.feedback(tree_id, outcome, **options))


class Consumers:
    """Readers of the log."""

    def __init__(self, client: Client) -> None:
        self._client = client

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
    ) -> results.Consumer:
        """Register a reader, or change the one last seen at `version`. Raises `Conflict` where somebody else was
        faster or holds the lease."""
        call = calls.put_consumer(name, version, cursor=cursor, owner=owner, lease_seconds=lease_seconds)
        return self._client.send(call)


class Admin:
    """A server's admin listener: its releases. base_url, key: `RAMIFY_ADMIN_URL` and `RAMIFY_ADMIN__KEY` where they are
    not given."""

    def __init__(
        self,
        base_url: str | None = None,
        key: str | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        max_retries: int = 2,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        found = Configuration.of_admin(base_url, key, timeout, max_retries)
        self._client = Client(configuration=found, transport=transport)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> Admin:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def releases(self) -> results.Releases:
        """Every release, and which one is active."""
        return self._client.send(calls.releases())

    def record(self, release: str, state: str, figures: Mapping[str, Any]) -> None:
        """Keep a gate's verdict: `candidate`, `promoted` or `rejected`, with its figures."""
        self._client.send(calls.record_release(release, state, figures))

    def activate(self, release: str, *, deadline_seconds: float = 30.0, note: str = "") -> results.Activation:
        """Serve a release from now on. Raises `Conflict` where it was refused or its canary failed; the one before is
        served then."""
        return self._client.send(calls.activate(release, deadline_seconds, note))

    def rollback(self) -> results.Activation:
        """Serve the release that was active before."""
        return self._client.send(calls.rollback())

    def drain(self, *, deadline_seconds: float = 20.0) -> None:
        """Take no more searches, and return when the running ones have ended."""
        self._client.send(calls.drain(deadline_seconds))
