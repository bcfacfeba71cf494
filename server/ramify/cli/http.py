"""Talking to a running server, with errors that say what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from ramify.cli.invocation import command
from ramify.cli.output import fail

DEFAULT = "http://127.0.0.1:8000"
TIMEOUT = httpx.Timeout(600.0, connect=5.0)


def client(server: str, api_key: str | None = None) -> httpx.Client:
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    return httpx.Client(base_url=server.rstrip("/"), headers=headers, timeout=TIMEOUT)


def served_by(server: str, api_key: str | None) -> dict[str, Any]:
    """Model and release of a running server. Leaves with a message where it cannot be asked."""
    with translated(server), client(server, api_key) as http:
        return dict(checked(http.get("/version")).json())


@contextmanager
def translated(server: str, key_flag: str = "--api-key, or RAMIFY_API_KEY") -> Iterator[None]:
    """Leave with a message where the server cannot be reached or refuses. key_flag: how its key is given."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        refusal = f"{server} answers {error.response.status_code}: {message_of(error.response)}"
        fail(refusal, *advice(error.response, key_flag))
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        fail(f"{server!r} is no address of a server", "write it like http://127.0.0.1:8000")
    except httpx.ConnectError:
        fail(f"no server answers at {server}", *how_to_start())
    except httpx.TimeoutException:
        fail(f"{server} does not answer in time")
    except httpx.HTTPError as error:
        fail(f"the connection to {server} broke: {error}")


def advice(response: httpx.Response, key_flag: str) -> list[str]:
    """What to do about an error response."""
    if "x-request-id" not in response.headers:  # which every answer of ours has
        return ["is it a Ramify server that listens there?"]
    return [f"give its key with {key_flag}"] if response.status_code == 401 else []


def how_to_start() -> tuple[str, ...]:
    ramify = command()
    return (
        f"start one in another terminal:   {ramify} serve",
        f'or search without a server:      {ramify} search --local "…"',
    )


def message_of(response: httpx.Response) -> str:
    """The message of an error response of ours; of any other what its status means, or else how it starts."""
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return response.reason_phrase or response.text[:200]


def checked(response: httpx.Response) -> httpx.Response:
    """The response, read, if it is a success. Raises `httpx.HTTPStatusError`."""
    if response.is_error:
        response.read()
    return response.raise_for_status()


def events(response: httpx.Response) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The Server-Sent Events of a response: (name, data) each; comments are skipped."""
    name, data = "message", ""
    for line in response.iter_lines():
        if not line:
            if data:
                yield name, json.loads(data)
            name, data = "message", ""
        elif line.startswith("event:"):
            name = line[6:].strip()
        elif line.startswith("data:"):
            data += line[5:].strip()
