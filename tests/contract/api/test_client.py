"""The Python client against a whole server around a fake model, through real HTTP messages."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.api.app import application
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
    Unauthorized,
    Unavailable,
    aio,
    client,
    errors,
)
from ramify_client.configuration import Configuration
from ramify_client.events import Reader
from ramify_client.lines import Lines

from .world import PROMPT, World, a_world, hold, over_network, release

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


async def test_a_cursor_goes_back_only_where_it_is_told_to_rewind(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, _):
        await client.search(PROMPT, search={"budget": {"simulations": 2}})
        there = await client.consumers.put("reader", cursor=1)
        with pytest.raises(BadRequest, match="rewind"):
            await client.consumers.put("reader", version=there.version, cursor=0)
        back = await client.consumers.put("reader", version=there.version, cursor=0, rewind=True)
        assert back.cursor == 0


async def test_models_version_readiness_and_values(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, _):
        (model,) = (await client.models()).data
        assert model.id == "letters"
        assert await client.model("letters") == model
        with pytest.raises(NotFound):
            await client.model("gpt/4")
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


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_what_may_have_been_done_is_not_done_again(status: int) -> None:
    async with answering(refuses(status)) as (client, seen):
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


def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    def methods(kind: type[Any]) -> dict[str, list[str]]:
        found = ((name, value) for name, value in vars(kind).items() if not name.startswith("_"))
        return {name: list(inspect.signature(value).parameters) for name, value in found}

    for one in ("Client", "Trees", "Consumers", "Admin", "SearchStream"):
        assert methods(getattr(client, one)) == methods(getattr(aio, f"Async{one}"))


async def test_the_synchronous_client_searches_streams_and_reads_the_log(tmp_path: Path) -> None:
    def use(url: str) -> None:
        with Client(url) as client:
            found = client.search(PROMPT, search={"budget": {"simulations": 4}})
            assert found.status == "complete"
            with client.stream(PROMPT, search={"budget": {"simulations": 4}}) as events:
                kinds = [event.kind for event in events]
            assert (kinds[0], kinds[-1]) == ("started", "completed")
            branched = client.trees.branch(found.tree.id, 0, search={"budget": {"simulations": 2}})
            assert [record.tree_id for record in client.trees.read(after=1)][-1] == branched.tree.id
            assert [record.seq for record in client.trees.read(limit=2)] == [1, 2]
            with pytest.raises(NotFound):
                client.trees.get("tree_nowhere")

    async with a_world(tmp_path) as world, over_network(world) as http:
        await asyncio.to_thread(use, str(http.base_url))


async def test_leaving_a_stream_ends_the_search_on_the_server(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world, over_network(world) as http:
        async with AsyncClient(str(http.base_url)) as client, client.stream(PROMPT) as events:
            async for event in events:
                assert event.kind == "started"
                hold(world.engines)
                break
        release(world.engines)
        async with asyncio.timeout(10):
            while not (found := await world.logged()):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert (found[0].status, found[0].tree_id) == ("cancelled", event.id.replace("srch", "tree"))


async def test_a_stream_that_is_cancelled_still_brings_its_answer(tmp_path: Path) -> None:
    async with (
        a_world(tmp_path) as world,
        over_network(world) as http,
        AsyncClient(str(http.base_url)) as client,
    ):
        async with client.stream(PROMPT, search={"budget": {"simulations": 10_000}}) as events:
            async for event in events:
                if event.kind == "progress":
                    cancelled = await events.cancel()
                    assert cancelled is not None
                    assert (cancelled.id, cancelled.status) == (event.id, "cancelled")
        assert event.result is not None
        assert event.result.status == "cancelled"


async def test_a_tree_is_branched_and_streamed_from_a_node(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, _):
        found = await client.search(PROMPT, search={"budget": {"simulations": 4}})
        few: dict[str, Any] = {"budget": {"simulations": 2}}
        branched = await client.trees.branch(found.tree.id, 0, search=few)
        assert (await client.trees.get(branched.tree.id)).tree["parent_tree"] == found.tree.id
        async with client.trees.stream_branch(found.tree.id, 0, search=few) as events:
            assert [event.kind async for event in events][-1] == "completed"


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


async def test_a_record_may_hold_characters_that_other_readers_break_lines_at() -> None:
    line = '{"seq": 1, "kind": "tree", "tree_id": "tree_a", "tree": {"text": "a\u2028b\u0085c"}}\n'
    async with answering(httpx.Response(200, content=line.encode())) as (client, _):
        (record,) = [record async for record in client.trees.read()]
        assert record.tree == {"text": "a\u2028b\u0085c"}


async def test_a_log_that_ends_inside_a_record_is_a_failed_connection() -> None:
    async with answering(httpx.Response(200, content=b'{"seq": 1'), max_retries=0) as (client, _):
        with pytest.raises(ConnectionFailed):
            _ = [record async for record in client.trees.read()]


@pytest.mark.parametrize("key", ["secret\nkey", "secret key", "secret-ö"])
def test_a_key_that_no_header_can_hold_is_refused_without_being_repeated(key: str) -> None:
    with pytest.raises(ValueError, match="API key") as refused:
        Client(api_key=key)
    assert "secret" not in str(refused.value)


def test_an_address_is_one_of_http_and_holds_no_password() -> None:
    with pytest.raises(ValueError, match="base_url") as refused:
        Client("http://me:secret@server")
    assert "secret" not in str(refused.value)
    with pytest.raises(ValueError, match="base_url"):
        Client("server:8000")


def test_address_and_key_come_from_the_environment_where_they_are_not_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAMIFY_BASE_URL", "http://server:1/")
    monkeypatch.setenv("RAMIFY_API_KEY", "from-the-environment")
    found = Configuration.of(None, None, 1, 0)
    assert (found.base_url, found.api_key) == ("http://server:1", "from-the-environment")
    assert Configuration.of("http://x", "given", 1, 0).api_key == "given"
    assert Configuration.of_admin(None, None, 1, 0).api_key is None


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("3", 3), ("-1", 0), ("inf", None), ("nan", None), ("soon", None), ("Wed, 21 Oct 2015 07:28:00 GMT", 0)],
)
def test_retry_after_is_seconds_or_a_date(said: str, seconds: float | None) -> None:
    assert errors.error_of(503, {"retry-after": said}, b"").retry_after == seconds


@given(st.data())
def test_events_are_the_same_however_their_bytes_come(data: st.DataObject) -> None:
    started = '{"id": "srch_a", "model": "ö\u2028"}'.encode()
    stream = (
        b": ping\n\nevent: search.started\r\ndata: " + started + b"\r\n\r\n: ping\nevent: other\ndata: 1\n\n"
    )
    stream += b'event:search.progress\ndata: {"id": "srch_a",\ndata: "tokens": 3}\n\n'
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader = Reader()
    pieces = [stream[i:j] for i, j in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    found = [event for piece in pieces for event in reader.feed(piece)]
    assert [(event.kind, event.id, event.tokens) for event in found] == [
        ("started", "srch_a", None),
        ("progress", "srch_a", 3),
    ]


def test_lines_and_events_are_bounded() -> None:
    with pytest.raises(InvalidAnswer, match="longer"):
        list(Lines(4).feed(b"12345"))
    with pytest.raises(InvalidAnswer, match="longer"):
        list(Reader(8).feed(b"data:1\ndata:2\ndata:3\ndata:4\ndata:5\n"))


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="timeout"):
        AsyncClient(timeout=0)
    assert asyncio.run(AsyncClient("http://127.0.0.1:9", max_retries=0).ready()) is False
