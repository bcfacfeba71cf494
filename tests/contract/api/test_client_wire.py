"""The Python client: its settings, and how it reads lines and events."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify_client import (
    AsyncClient,
    Client,
    InvalidAnswer,
    Unauthorized,
    errors,
)
from ramify_client.configuration import Configuration
from ramify_client.streaming import EventReader, Lines

from .client_servers import answering, refuses

pytestmark = pytest.mark.anyio


async def test_the_key_is_sent_and_never_shown() -> None:
    async with answering(refuses(401), api_key="secret-secret", max_retries=0) as (client, seen):
        with pytest.raises(Unauthorized) as refused:
            await client.models()
        assert seen[0].headers["authorization"] == "Bearer secret-secret"
        assert "secret" not in repr(client.configuration) + str(refused.value) + repr(client)


async def test_a_record_may_hold_characters_that_other_readers_break_lines_at() -> None:
    line = '{"seq": 1, "kind": "tree", "tree_id": "tree_a", "tree": {"text": "a\u2028b\u0085c"}}\n'
    async with answering(httpx.Response(200, content=line.encode())) as (client, _):
        (record,) = [record async for record in client.trees.read()]
        assert record.tree == {"text": "a\u2028b\u0085c"}


@pytest.mark.parametrize("key", ["secret\nkey", "secret key", "secret-ö"])
def test_a_key_that_no_header_can_hold_is_refused_without_being_repeated(key: str) -> None:
    with pytest.raises(ValueError, match="API key") as refused:
        Client(api_key=key)
    assert "secret" not in str(refused.value)


def test_an_address_is_one_of_http_and_holds_no_password() -> None:
    with pytest.raises(ValueError, match="address") as refused:
        Client("http://me:secret@server")
    assert "secret" not in str(refused.value)
    with pytest.raises(ValueError, match="address"):
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
    reader = EventReader()
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
        list(EventReader(8).feed(b"data:1\ndata:2\ndata:3\ndata:4\ndata:5\n"))


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="timeout"):
        AsyncClient(timeout=0)
    assert asyncio.run(AsyncClient("http://127.0.0.1:9", max_retries=0).ready()) is False
