"""Talking to a running server through `ramify_client`, with errors that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import httpx

from ramify.cli.terminal import command, fail, refuse
from ramify_client import Admin, Client, ConnectionFailed, RamifyError, ResponseError, Unauthorized


@contextmanager
def asking(
    server: str | None, api_key: str | None, *, otherwise: str = 'search --local "…"'
) -> Iterator[Client]:
    """Open a client of a server; exit with a message if the server cannot be reached or refuses.

    server, api_key: `RAMIFY_BASE_URL` and `RAMIFY_API_KEY`, then the default address, stand in for None. otherwise: the
    command that does without a server.
    """
    try:
        client = Client(server, api_key, max_retries=0)
    except ValueError as error:
        refuse(error)
    with client:
        try:
            yield client
        except RamifyError as error:
            _leave(error, client.configuration.base_url, "--api-key, or RAMIFY_API_KEY", otherwise)


@contextmanager
def administering(address: str | None, key: str | None, timeout: float = 30.0) -> Iterator[Admin]:
    """Open a client of an admin listener; exit with a message if it cannot be reached or refuses.

    address, key: by default `RAMIFY_ADMIN_URL` and `RAMIFY_ADMIN__KEY`. timeout: seconds that one call may take.
    """
    try:
        admin = Admin(address, key, timeout=timeout, max_retries=0)
    except ValueError as error:
        refuse(error)
    with admin:
        try:
            yield admin
        except RamifyError as error:
            _leave(error, "the admin listener", "--key, or RAMIFY_ADMIN__KEY", None)


def _leave(error: RamifyError, server: str, key_flag: str, otherwise: str | None) -> NoReturn:
    """Exit with what went wrong and what to do about it. key_flag: the flag that gives the server's key."""
    if isinstance(error, ResponseError):
        if error.request_id is None:  # every answer of ours has one
            fail(
                f"{server} answers {error.status} {httpx.codes.get_reason_phrase(error.status)}".rstrip(),
                "is it a Ramify server that listens there?",
            )
        advice = [f"give its key with {key_flag}"] if isinstance(error, Unauthorized) else []
        fail(f"{server} answers {error}", *advice)
    unreached = isinstance(error, ConnectionFailed) and isinstance(error.__cause__, httpx.ConnectError)
    fail(error, *(_how_to_start(otherwise) if unreached else ()))


def _how_to_start(otherwise: str | None) -> Iterator[str]:
    ramify = command()
    yield f"start one in another terminal:   {ramify} serve"
    if otherwise is not None:
        yield f"or do without a server:          {ramify} {otherwise}"
