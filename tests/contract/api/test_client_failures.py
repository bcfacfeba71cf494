"""The Python client: what is tried again and what is not, and the error of each failure."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import httpx
import pytest

from ramify_client import (
    AsyncClient,
    BadRequest,
    Client,
    Conflict,
    ConnectionFailed,
    InvalidAnswer,
    NotFound,
    RateLimited,
    RequestTimeout,
    ResponseError,
    ServerError,
    errors,
)

from .client_servers import Handler, answering, refuses

pytestmark = pytest.mark.anyio
FOUND = {"object": "list", "data": []}


async def test_a_refused_search_is_sent_again_under_the_same_key_after_the_time_that_the_server_names() -> (
    None
):
    async with answering(
        refuses(503, **{"retry-after": "0"}), refuses(429, **{"retry-after": "0"}), refuses(400)
    ) as (
        client,
        seen,
    ):
        with pytest.raises(BadRequest):
            await client.search("x")
        assert len(seen) == 3
        assert len({request.headers["idempotency-key"] for request in seen}) == 1


async def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    async with answering(refuses(503, **{"retry-after": "60"}), timeout=5) as (client, seen):
        with pytest.raises(ServerError) as refused:
            await client.models()
        assert (refused.value.retry_after, len(seen)) == (60, 1)


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_what_may_have_been_done_is_not_done_again(status: int) -> None:
    async with answering(refuses(status)) as (client, seen):
        with pytest.raises(ResponseError):
            await client.trees.feedback("tree_x", 1.0)
        assert len(seen) == 1


async def test_the_server_can_forbid_another_try() -> None:
    async with answering(refuses(503, **{"x-should-retry": "false"})) as (client, seen):
        with pytest.raises(ServerError):
            await client.models()
        assert len(seen) == 1


async def test_reading_the_log_goes_on_after_the_last_whole_record() -> None:
    def broken(_: httpx.Request) -> httpx.Response:
        async def body() -> AsyncIterator[bytes]:
            yield b'{"seq": 1, "kind": "tree", "tree_id": "tree_a", "tree": {}}\n'
            raise httpx.ReadError("gone")

        return httpx.Response(200, content=body())

    verdict = '"kind": "outcome", "tree_id": "tree_a", "outcome": 1, "source": "human", "created_at": 1'
    rest = httpx.Response(200, text=f'{{"seq": 2, {verdict}}}\n')
    async with answering(broken, rest) as (client, seen):
        assert [record.seq async for record in client.trees.read()] == [1, 2]
        assert [request.url.params["after"] for request in seen] == ["0", "1"]


async def test_an_answer_of_another_shape_is_an_invalid_answer() -> None:
    async with answering(httpx.Response(200, json={"data": 3})) as (client, _):
        with pytest.raises(InvalidAnswer, match="data"):
            await client.models()


async def test_a_stream_that_ends_too_soon_is_a_failed_connection() -> None:
    async with answering(httpx.Response(200, content=b": ping\n\n")) as (client, _):
        with pytest.raises(ConnectionFailed):
            async with client.stream("x") as events:
                _ = [event async for event in events]


def raises(error: Exception) -> Handler:
    def handle(_: httpx.Request) -> httpx.Response:
        raise error

    return handle


ERRORS_OF_HTTPX = sorted(
    (
        kind
        for kind in (getattr(httpx, name) for name in httpx.__all__)
        if isinstance(kind, type) and issubclass(kind, Exception)
    ),
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", ERRORS_OF_HTTPX, ids=lambda kind: kind.__name__)
def test_every_error_of_httpx_is_translated_and_chained(kind: type[Exception]) -> None:
    error = kind.__new__(kind, "x")  # some take no message
    expected = RequestTimeout if issubclass(kind, httpx.TimeoutException) else ConnectionFailed
    with pytest.raises(expected) as found, errors.translating():
        raise error
    assert found.value.__cause__ is error


async def test_no_error_of_httpx_leaves_the_client() -> None:
    for kind, expected in ((httpx.ConnectError, ConnectionFailed), (httpx.ReadTimeout, RequestTimeout)):
        async with answering(raises(kind("x")), max_retries=0) as (client, _):
            with pytest.raises(expected):
                await client.models()


async def test_no_server_is_said_with_its_address() -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))  # and never listens
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        async with AsyncClient(url, max_retries=0) as client:
            with pytest.raises(ConnectionFailed, match=f"no server answers at {url}"):
                await client.models()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequest),
        (404, NotFound),
        (409, Conflict),
        (429, RateLimited),
        (503, ServerError),
        (418, ResponseError),
    ],
)
def test_every_status_has_its_error(status: int, kind: type[ResponseError]) -> None:
    found = errors.error_of(status, {"retry-after": "2.5"}, b"<html>")
    assert type(found) is kind
    assert found.retry_after == 2.5


async def test_a_refused_stream_is_asked_for_again_under_the_same_key() -> None:
    refusal = refuses(503, **{"retry-after": "0"})
    async with answering(refusal, refuses(400)) as (client, seen):
        with pytest.raises(BadRequest):
            async with client.stream("x"):
                pass
        assert len({request.headers["idempotency-key"] for request in seen}) == 1
        assert len(seen) == 2


async def test_a_redirect_is_an_error_that_names_the_other_address() -> None:
    moved = httpx.Response(307, headers={"location": "https://elsewhere/"})
    async with answering(moved, api_key="secret") as (client, seen):
        with pytest.raises(ResponseError, match="https://elsewhere/"):
            await client.models()
        assert len(seen) == 1


async def test_an_answer_that_comes_too_slowly_is_a_timeout_for_either_client() -> None:
    gone = asyncio.Event()
    connections: list[asyncio.Task[None] | None] = []

    async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(asyncio.current_task())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not gone.is_set():
            writer.write(b" ")
            await asyncio.sleep(0.01)
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)

    async with await asyncio.start_server(dribble, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with AsyncClient(url, timeout=0.3) as client:
            with pytest.raises(RequestTimeout):
                await client.models()

        def wait() -> None:
            with Client(url, timeout=0.3) as client, pytest.raises(RequestTimeout):
                client.models()

        await asyncio.to_thread(wait)
        gone.set()
        await asyncio.gather(*filter(None, connections))


async def test_a_log_that_ends_inside_a_record_is_a_failed_connection() -> None:
    async with answering(httpx.Response(200, content=b'{"seq": 1'), max_retries=0) as (client, _):
        with pytest.raises(ConnectionFailed):
            _ = [record async for record in client.trees.read()]
