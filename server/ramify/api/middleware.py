"""Middleware around every request, as plain ASGI: it must see each byte in, each byte out, and every disconnect."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ramify.api import errors
from ramify.api.json_body import NOT_JSON, is_json
from ramify.service.errors import ServiceError
from ramify.service.metrics import Metrics
from ramify.settings import is_loopback

logger = logging.getLogger(__name__)
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing."""
QUIET_PATHS = ("/livez", "/readyz", "/health", "/metrics")
"""Asked for every few seconds by machines, so they are logged at debug level."""


def request_id(request: Request) -> str:
    """Return the request's id, as `identified` gave it."""
    return str(request.scope.get("ramify_request_id", ""))


def identified(app: ASGIApp, metrics: Metrics, replica: int | None = None) -> ASGIApp:
    """Give each request an id (the caller's own if it is sane), send it back, log and count the answer.

    replica: number of this server among several, which every answer names; `None`: it is the only one."""

    async def identify(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        number = given if REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"
        scope["ramify_request_id"] = number
        began, status = time.monotonic(), 0

        async def tagged(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = number
                if replica is not None:
                    headers["x-ramify-replica"] = str(replica)
            await send(message)

        try:
            await app(scope, receive, tagged)
        except Exception:
            logger.exception("request %s %s %s failed", number, scope["method"][:20], scope["path"][:200])
            if not status:  # whatever it was, it came before the error handlers could answer
                status = 500
                answer = JSONResponse(errors.internal_error(number).model_dump(), 500)
                await answer(scope, receive, tagged)
        finally:
            _note(scope, number, status, time.monotonic() - began, metrics)

    return identify


def _note(scope: Scope, number: str, status: int, seconds: float, metrics: Metrics) -> None:
    """Log and count an answer."""
    route = getattr(scope.get("route"), "path", "unmatched")
    metrics.answered(scope["method"] if route != "unmatched" else "any", route, status, seconds)
    level = logging.DEBUG if scope["path"] in QUIET_PATHS else logging.INFO
    method, path = scope["method"][:20], scope["path"][:200]
    logger.log(level, "%s %s status=%d seconds=%.3f request=%s", method, path, status, seconds, number)


def too_large(limit: int) -> HTTPException:
    """Build the refusal of a body that is longer than `limit` bytes."""
    return HTTPException(413, f"the body is larger than the {limit} bytes taken here (limits.body_bytes)")


def body_limited(app: ASGIApp, limit: int) -> ASGIApp:
    """Refuse a body as soon as it is longer than `limit` bytes, before anything parses it."""

    async def limited(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        if length.isdecimal() and (len(length) > 18 or int(length) > limit):
            answer = errors.response(413, too_large(limit).detail, code="body_too_large")
            await answer(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > limit:
                    raise too_large(limit)
            return message

        await app(scope, counted, send)

    return limited


def guarded(app: ASGIApp, refusal: Callable[[str, Headers], Response | None]) -> ASGIApp:
    """Let a request pass only if `refusal`, given its method and headers, has no answer to it."""

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        refused = refusal(scope["method"], Headers(scope=scope)) if scope["type"] == "http" else None
        await (refused or app)(scope, receive, send)

    return guard


def host_refusal(_: str, headers: Headers) -> Response | None:
    """Refuse every name but this machine's own.

    Without API keys, no web page may reach the server by making its own name point here (DNS rebinding).
    """
    if names_this_machine(headers.get("host", "")):
        return None
    message = "without API keys this server answers to localhost, 127.0.0.1 and [::1] only"
    return errors.response(403, message, code="host_not_allowed")


def origin_refusal(method: str, headers: Headers) -> Response | None:
    """Refuse requests that change something and that a browser sends for another site's page.

    A listener without keys trusts whoever is on this machine, and any page that is open in a browser there is. The
    page can read no answer, but a plain POST of its form or script would be carried out. Browsers say whose page asks,
    in `Sec-Fetch-Site`, or the older ones in `Origin`; other programs send neither.
    """
    if method in SAFE_METHODS or not cross_site(headers):
        return None
    message = "a page of another site may not change anything here (Origin, Sec-Fetch-Site)"
    return errors.response(403, message, code="cross_site")


def admin_refusal(digest: bytes) -> Callable[[str, Headers], Response | None]:
    """Make the check that refuses whoever does not send the admin key. digest: the key's sha256."""

    def refusal(_: str, headers: Headers) -> Response | None:
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        given = hashlib.sha256(secret.strip().encode()).digest()
        if scheme.lower() == "bearer" and hmac.compare_digest(given, digest):
            return None
        return errors.service_response(
            ServiceError("invalid_api_key", "send the admin key: Authorization: Bearer <key>")
        )

    return refusal


def json_refusal(method: str, headers: Headers) -> Response | None:
    """Refuse requests that may change something and do not say that they send JSON, even if they have no body.

    No page of another site can have a browser say so unasked.
    """
    if method in SAFE_METHODS or is_json(headers):
        return None
    return errors.response(415, NOT_JSON, code="unsupported_media_type")


def cross_site(headers: Headers) -> bool:
    """Return whether a browser sends this for a page that is not the server's own."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site not in ("same-origin", "none")
    return origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower()


def names_this_machine(host: str) -> bool:
    """Return whether a Host header names this machine by a loopback name."""
    name = re.sub(r":\d+$", "", host).lower()
    return (
        name == "[::1]"
        or name == "localhost"
        or (is_loopback(name) and re.fullmatch(r"[\d.]+", name) is not None)
    )
