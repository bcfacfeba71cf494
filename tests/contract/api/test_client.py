"""The Python client against a whole server around a fake model, through real HTTP messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from ramify.api.app import application
from ramify_client import (
    AsyncClient,
    BadRequest,
    Conflict,
    ConnectionFailed,
    InvalidAnswer,
    NotFound,
    RateLimited,
    RequestTimeout,
    ResponseError,
    Unauthorized,
    Unavailable,
    errors,
)

from .world import PROMPT, World, a_world

pytestmark = pytest.mark.anyio
Handler = Callable[[httpx.Request], httpx.Response]


@asynccontextmanager
async def served(folder: Path, **settings: Any) -> AsyncIterator[tuple[AsyncClient, World]]:
    async with a_world(folder, **settings) as world:
        transport = httpx.ASGITransport(application(world.context), raise_app_exceptions=False)
        async with AsyncClient("http://127.0.0.1:8000", transport=transport) as client:
            yield client, world


@asynccontextmanager
async def answering(
    *answers: Handler | httpx.Response, **options: Any
) -> AsyncIterator[tuple[AsyncClient, list[Any]]]:
    """A client whose server gives these answers, one after another, and the requests it got."""
    seen: list[httpx.Request] = []
    left = list(answers)

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        answer = left.pop(0)
        return answer(request) if callable(answer) else answer

    async with AsyncClient("http://server", transport=httpx.MockTransport(handle), **options) as client:
        yield client, seen


def refuses(status: int, code: str | None = None, **headers: str) -> httpx.Response:
    error = {"message": "no", "type": "t", "param": "p", "code": code}
    return httpx.Response(status, json={"error": error}, headers={"x-request-id": "req-1", **headers})


FOUND = {"object": "list", "data": []}


async def test_a_search_its_tree_and_its_feedback_come_back_typed(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, _):
        found = await client.search(PROMPT, search={"budget": {"simulations": 4}}, seed=1, n=2)
        assert found.status == "complete"
        assert found.answer is not None
        assert found.usage.simulations == 4
        assert (await client.get_search(found.id)).answer == found.answer
        tree = await client.trees.get(found.tree.id)
        assert tree.tree["id"] == found.tree.id
        assert (await client.trees.dot(found.tree.id)).startswith("digraph")
        said = await client.trees.feedback(found.tree.id, 1.0, comment="checked")
        assert (said.outcome, said.comment) == (1.0, "checked")
        (listed,) = (await client.trees.list()).data
        assert listed.id == found.tree.id
        assert [r.kind async for r in client.trees.read()] == ["tree", "outcome"]
        await client.trees.delete(found.tree.id)
        with pytest.raises(NotFound):
            await client.trees.get(found.tree.id)


async def test_a_stream_gives_started_progress_and_completed(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, _):
        async with client.stream(PROMPT, search={"budget": {"simulations": 4}}) as events:
            seen = [event async for event in events]
        assert (seen[0].kind, seen[-1].kind) == ("started", "completed")
        assert seen[-1].result is not None
        assert seen[-1].result.status == "complete"


async def test_a_reader_moves_its_cursor_and_a_stale_version_is_a_conflict(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, _):
        await client.search(PROMPT, search={"budget": {"simulations": 2}})
        first = await client.consumers.put("reader", cursor=0)
        moved = await client.consumers.put(
            "reader", version=first.version, cursor=1, owner="me", lease_seconds=60
        )
        assert (moved.cursor, moved.owner, moved.high_water) == (1, "me", 1)
        with pytest.raises(Conflict) as stale:
            await client.consumers.put("reader", version=first.version, cursor=1)
        assert stale.value.code == "stale_version"
        assert (await client.consumers.get("reader")).version == moved.version


async def test_models_version_readiness_and_values(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, _):
        assert [model.id for model in (await client.models()).data] == ["letters"]
        assert (await client.version()).model == "letters"
        assert await client.ready()
        assert (await client.value(PROMPT, ["aa", "b"])).values[0] > 0


async def test_an_error_names_the_field_and_the_request(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, _):
        with pytest.raises(BadRequest) as refused:
            await client.search(PROMPT, search={"width": 0})
        assert (refused.value.status, refused.value.param) == (400, "search.width")
        assert refused.value.request_id


async def test_the_key_is_sent_and_never_shown() -> None:
    async with answering(refuses(401), api_key="secret-secret", max_retries=0) as (client, seen):
        with pytest.raises(Unauthorized) as refused:
            await client.models()
        assert seen[0].headers["authorization"] == "Bearer secret-secret"
        assert "secret" not in repr(client.configuration) + str(refused.value) + repr(client)


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
        with pytest.raises(Unavailable) as refused:
            await client.models()
        assert (refused.value.retry_after, len(seen)) == (60, 1)


async def test_what_may_have_been_done_is_not_done_again() -> None:
    async with answering(refuses(500)) as (client, seen):
        with pytest.raises(ResponseError):
            await client.trees.feedback("tree_x", 1.0)
        assert len(seen) == 1


async def test_the_server_can_forbid_another_try() -> None:
    async with answering(refuses(503, **{"x-should-retry": "false"})) as (client, seen):
        with pytest.raises(Unavailable):
            await client.models()
        assert len(seen) == 1


async def test_reading_the_log_goes_on_after_the_last_whole_record() -> None:
    def broken(_: httpx.Request) -> httpx.Response:
        async def body() -> AsyncIterator[bytes]:
            yield b'{"seq": 1, "kind": "tree", "tree_id": "tree_a", "tree": {}}\n'
            raise httpx.ReadError("gone")

        return httpx.Response(200, content=body())

    rest = httpx.Response(200, content=b'{"seq": 2, "kind": "outcome", "tree_id": "tree_a", "outcome": 1}\n')
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


FAILURES = sorted(
    {
        kind
        for base in (httpx.TransportError, httpx.StreamError, httpx.DecodingError, httpx.TooManyRedirects)
        for kind in (
            base,
            *base.__subclasses__(),
            *(k for s in base.__subclasses__() for k in s.__subclasses__()),
        )
    },
    key=lambda kind: kind.__name__,
)


NO_MESSAGE = {httpx.StreamConsumed, httpx.StreamClosed, httpx.ResponseNotRead, httpx.RequestNotRead}


@pytest.mark.parametrize("kind", FAILURES, ids=lambda kind: kind.__name__)
async def test_no_error_of_httpx_leaves_the_client(kind: type[Exception]) -> None:
    error = (
        kind()
        if kind in (httpx.StreamConsumed, httpx.StreamClosed, httpx.ResponseNotRead, httpx.RequestNotRead)
        else kind("x")
    )
    async with answering(raises(error), max_retries=0) as (client, _):
        expected = RequestTimeout if issubclass(kind, httpx.TimeoutException) else ConnectionFailed
        with pytest.raises(expected):
            await client.models()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequest),
        (404, NotFound),
        (409, Conflict),
        (429, RateLimited),
        (503, Unavailable),
        (418, ResponseError),
    ],
)
def test_every_status_has_its_error(status: int, kind: type[ResponseError]) -> None:
    found = errors.error_of(status, {"retry-after": "2.5"}, b"<html>")
    assert type(found) is kind
    assert found.retry_after == 2.5


def test_both_clients_have_the_same_methods() -> None:
    from ramify_client import Client

    def methods(kind: type[Any]) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert methods(Client) == methods(AsyncClient)


def test_the_synchronous_client_searches_too() -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=FOUND)

    from ramify_client import Client

    with Client("http://server", transport=httpx.MockTransport(handle)) as client:
        assert client.models().data == []


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="timeout"):
        AsyncClient(timeout=0)
    assert asyncio.run(AsyncClient("http://127.0.0.1:9", max_retries=0).ready()) is False
