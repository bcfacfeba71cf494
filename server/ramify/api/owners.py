"""Requests about what runs at another replica of the fleet: they are sent on to it, so that any replica may be asked.

The last two digits of an id are its replica's number, and the fleet's rows have the addresses. HAProxy and nginx as
`deploy/` configures them find the owner by themselves; behind a balancer that knows nothing of ids, this does.

The owner checks the API key, scopes and all else as if it had been asked itself, and its answer is passed on as it is.
It never sends the request on again. If it does not answer, this server does, from the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
from fastapi import Request, Response

from ramify.api.context import Context, context_of
from ramify.api.streaming import EventStream
from ramify.fleet import Replica
from ramify.service.errors import ServiceError
from ramify.service.fleet import CONNECT
from ramify.service.owners import owner_of
from ramify.service.searches import LET_GO

logger = logging.getLogger(__name__)
FORWARDED = "x-ramify-forwarded"
"""Marks a request that was sent on, so that it is not sent on again."""
PASSED = ("authorization",)
"""Headers of the request that go with it, beside its id. It is an API key: this server has checked that."""
RETURNED = ("content-type", "retry-after", "x-should-retry", "x-ramify-search-id", "x-ramify-tree")
"""Headers of the answer that come back with it."""
STATE_SECONDS = 10.0
"""Seconds that an owner may take to begin to tell a state, for which it waits for nothing."""
ASK_AGAIN = 5
"""Seconds after which an owner that does not answer may, or is known to have ended."""


async def at_owner(
    request: Request, given: str, handler: Callable[[Request], Awaitable[Response]]
) -> Response:
    """Return the answer of the replica that gave an id, else this one's. Raises `ServiceError`."""
    context = context_of(request)
    fleet = context.fleet
    if fleet is None or FORWARDED in request.headers:
        return await handler(request)
    owner = owner_of(fleet.view, fleet.mine, given)
    if owner is None:
        return await handler(request)
    try:
        return await _sent_on(request, context, owner)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        why = f"replica {owner.number} ({owner.address}), which gave this id, does not answer"
        logger.warning("%s: %s", why, error or type(error).__name__)
    try:
        return await handler(request)
    except ServiceError as error:
        lost_meanwhile = owner_of(fleet.view, fleet.mine, given) is None
        if error.code != "not_found" or lost_meanwhile:
            raise
        raise ServiceError("engine_unavailable", why, param=error.param, retry_after=ASK_AGAIN) from None


async def _sent_on(request: Request, context: Context, owner: Replica) -> Response:
    """Return the owner's answer. Raises `httpx.HTTPError`, `TimeoutError`."""
    assert context.fleet is not None
    passed = () if context.keyring.open else PASSED  # without keys, whatever is sent as one is none of ours
    headers = {name: request.headers[name] for name in passed if name in request.headers}
    headers |= {FORWARDED: "1", "x-request-id": request.scope["ramify_request_id"]}
    path = request.scope["raw_path"] + (b"?" + query if (query := request.scope["query_string"]) else b"")
    http, url = context.fleet.http, owner.address.rstrip("/") + path.decode("ascii")
    timeout = httpx.Timeout(_patience(context), connect=CONNECT)
    asked = http.build_request(request.method, url, headers=headers, timeout=timeout)
    async with asyncio.timeout(STATE_SECONDS if request.method == "GET" else None):
        answer = await http.send(asked, stream=True)
    kept = {name: answer.headers[name] for name in RETURNED if name in answer.headers}
    try:
        if answer.headers.get("x-ramify-replica") != str(owner.number):
            raise httpx.RemoteProtocolError(f"another server answers at {owner.address}")
        if not kept.get("content-type", "").startswith(EventStream.media_type):
            return Response(await answer.aread(), answer.status_code, kept)
    except BaseException:
        await answer.aclose()
        raise
    return EventStream(_events(answer, owner), kept)


async def _events(answer: httpx.Response, owner: Replica) -> AsyncIterator[bytes]:
    """Pass a stream on. Raises `ServiceError` if its replica goes before its end."""
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    except httpx.HTTPError as error:
        why = f"replica {owner.number} ({owner.address}), which ran it, has gone: ask for the search again"
        raise ServiceError("engine_unavailable", why, retry_after=ASK_AGAIN) from error
    finally:
        await answer.aclose()


def _patience(context: Context) -> float:
    """Return the seconds that an answer, or its next part, may take: a search that is ended is logged by then."""
    settings = context.settings
    return (
        LET_GO + settings.limits.verdict_seconds + settings.spool.wait_seconds + settings.stream.ping_seconds
    )
