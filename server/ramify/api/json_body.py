"""The one place that reads bodies as JSON, for every route.

JSON can write what nothing behind it can hold: half a surrogate pair is a string that cannot be sent, 1e999 is a number
that cannot be written again, and a thousand nested lists overflow the stack of whatever writes them. Such a value once
got into a tree, and the tree could never be read again. So these values are refused here, in every field.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from fastapi import Request
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from ramify.service.errors import BadRequest

NOT_JSON = "send JSON, with the header Content-Type: application/json"
DEEPEST = 100
"""Lists and objects within each other."""
LONGEST_PATH = 300
"""Characters of a field's path in an error."""
SUSPECT = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]|[eE]\+?\d{3}|\d{300}|NaN|Infinity")
"""Finds every text that may hold half a surrogate pair or a number that is not finite."""
Path = tuple["Path", object] | None
"""The innermost key or index last."""


class JsonRequest(Request):
    """A request whose body was read by `parsed`."""

    content: Any = None

    async def json(self) -> Any:
        return self.content


async def read(request: Request) -> Request:
    """Return the request with its body parsed. Raise `HTTPException` (415) or `BadRequest`."""
    reading = JsonRequest(request.scope, request.receive)
    if body := await reading.body():
        if not is_json(request.headers):
            raise HTTPException(415, NOT_JSON)
        reading.content = parsed(body)
    return reading


def is_json(headers: Headers) -> bool:
    """Return whether a request's headers say that its body is JSON."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def parsed(body: bytes) -> Any:
    """Parse a JSON text. Raise `BadRequest`, which names the field if there is one."""
    try:
        text = body.decode("utf-8-sig")
        value = json.loads(text)
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not valid UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise BadRequest(f"the body is not valid JSON: {error.msg} at character {error.pos}") from error
    except ValueError as error:  # Python's own limit
        raise BadRequest("the body holds a number of too many digits") from error
    except RecursionError as error:
        raise too_deep(None) from error
    if SUSPECT.search(text) or text.count("[") + text.count("{") > DEEPEST:
        check(value)
    return value


def check(value: Any) -> None:
    """Raise `BadRequest`, naming the field, for a value that could not be written again."""
    waiting: list[tuple[Any, Path, int]] = [(value, None, 0)]
    while waiting:
        item, path, depth = waiting.pop()
        if isinstance(item, str) and not is_text(item):
            raise BadRequest("is not valid Unicode: it holds half of a surrogate pair", param=written(path))
        if isinstance(item, float) and not math.isfinite(item):
            raise BadRequest("must be a finite number", param=written(path))
        if isinstance(item, dict | list):
            if depth == DEEPEST:
                raise too_deep(written(path))
            waiting.extend((inner, (path, key), depth + 1) for key, inner in _members(item, path))


def _members(item: dict[str, Any] | list[Any], path: Path) -> Iterator[tuple[object, Any]]:
    if isinstance(item, list):
        yield from enumerate(item)
        return
    for key, inner in item.items():
        if not is_text(key):
            raise BadRequest("has a field whose name is not valid Unicode", param=written(path))
        yield key, inner


def is_text(text: str) -> bool:
    """Return whether a text can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def too_deep(param: str | None) -> BadRequest:
    return BadRequest(f"the body nests lists and objects more than {DEEPEST} deep", param=param)


def written(path: Path) -> str | None:
    """Write a path as `messages.0.content`; None for the body itself."""
    parts: list[str] = []
    while path is not None:
        path, part = path
        parts.append(str(part)[:100])
    return ".".join(reversed(parts))[:LONGEST_PATH] or None
