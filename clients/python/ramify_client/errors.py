"""The errors of the client, one family::

RamifyError
├── ConnectionFailed        no connection, or it broke before the answer was whole
├── RequestTimeout          no answer within `timeout`
├── InvalidAnswer           the server's answer is not what its API promises
├── SearchError             a stream ended with an `error` event
└── ResponseError           the server answered with an error `status`: one of these, or another
    ├── BadRequest          400: a field is wrong; `param` names it
    ├── Unauthorized        401
    ├── NotFound            404
    ├── Conflict            409
    ├── RateLimited         429
    └── ServerError         any 5xx
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

LONGEST = 500
"""Characters of a foreign text that an error repeats."""
FOREIGN = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, httpx.CookieConflict)
"""The errors that httpx raises."""


class RamifyError(Exception):
    """Anything that this client raises."""


class ConnectionFailed(RamifyError):
    """There was no connection, or it broke before the answer was whole."""


class RequestTimeout(RamifyError):
    """The server did not answer in time."""


class InvalidAnswer(RamifyError):
    """The server's answer is not what its API promises."""


class SearchError(RamifyError):
    """A streamed search ended with an error; `type`, `param` and `code` are the server's."""

    def __init__(self, message: str, kind: str | None, param: str | None, code: str | None) -> None:
        super().__init__(message)
        self.type, self.param, self.code = kind, param, code


class ResponseError(RamifyError):
    """The server answered with an error status."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        kind: str | None = None,
        param: str | None = None,
        code: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        should_retry: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.type, self.param, self.code = kind, param, code
        """The server's `error` object; `param` is the path of the field."""
        self.request_id = request_id
        """For the server's operator."""
        self.retry_after = retry_after
        """Seconds after which to try again; None if the server does not say."""
        self.should_retry = should_retry
        """The server's `x-should-retry`."""


class BadRequest(ResponseError):
    """400"""


class Unauthorized(ResponseError):
    """401"""


class NotFound(ResponseError):
    """404"""


class Conflict(ResponseError):
    """409"""


class RateLimited(ResponseError):
    """429"""


class ServerError(ResponseError):
    """5xx"""


_BY_STATUS: Mapping[int, type[ResponseError]] = {
    400: BadRequest,
    401: Unauthorized,
    404: NotFound,
    409: Conflict,
    429: RateLimited,
}


def error_of(status: int, headers: Mapping[str, str], body: bytes) -> ResponseError:
    """Return the exception for an error response, whatever its body holds."""
    details = _error_object(body)
    kind = _BY_STATUS.get(status, ServerError if status >= 500 else ResponseError)
    message = _text(details.get("message")) or body[:LONGEST].decode("utf-8", "replace") or "no message"
    if 300 <= status < 400:
        message = f"redirected to {headers.get('location', 'nowhere')}; give the address that it leads to"
    return kind(
        f"{status}: {message[:LONGEST]}",
        status=status,
        kind=_text(details.get("type")),
        param=_text(details.get("param")),
        code=_text(details.get("code")),
        request_id=headers.get("x-request-id"),
        retry_after=_seconds(headers.get("retry-after")),
        should_retry={"true": True, "false": False}.get(headers.get("x-should-retry", "")),
    )


def search_error(body: bytes) -> SearchError:
    """Return the exception for a stream's `error` event."""
    details = _error_object(body)
    message = _text(details.get("message")) or "the search failed"
    return SearchError(
        message, _text(details.get("type")), _text(details.get("param")), _text(details.get("code"))
    )


@contextmanager
def translating(server: str = "its address") -> Iterator[None]:
    """Raise httpx's errors as ours, chained: the one edge at which they are translated.

    server: the address to name if nobody answers."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise RequestTimeout(f"no answer in time ({type(error).__name__})") from error
    except httpx.ConnectError as error:
        raise ConnectionFailed(f"no server answers at {server}: {error}"[:LONGEST]) from error
    except FOREIGN as error:
        raise ConnectionFailed(f"{type(error).__name__}: {error}"[:LONGEST]) from error


def _error_object(body: bytes) -> Mapping[str, object]:
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return {}
    return error if isinstance(error, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _seconds(value: str | None) -> float | None:
    """`Retry-After`: seconds, or a date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value).astimezone(UTC) - datetime.now(UTC)).total_seconds()
        except ValueError:
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
