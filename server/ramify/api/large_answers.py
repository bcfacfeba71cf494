"""Answers that hold whole trees: megabytes, so they are made and compressed in a thread, never on the event loop.

A thread alone does not keep the loop free: one call into C, such as `json.loads` of a whole tree, holds the interpreter
to its end. So a logged tree is sent as the very bytes that were logged, and parsed piece by piece if it must be parsed.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import Request, Response
from zstandard import ZstdCompressor

SMALL = 16 << 10
"""Bytes below which an answer is not worth compressing."""
ENCODINGS: Mapping[str, Callable[[bytes], bytes]] = {
    "zstd": lambda body: ZstdCompressor(level=3).compress(body),
    "gzip": lambda body: gzip.compress(body, 5),
}
"""By preference: zstd is smaller and several times faster."""


async def answer(
    request: Request,
    render: Callable[[], bytes],
    *,
    media_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The body that `render` makes, compressed if it is large and the client takes that."""
    encoding = accepted(request.headers.get("accept-encoding", ""))
    body, encoding = await asyncio.to_thread(_made, render, encoding)
    told = {"Vary": "Accept-Encoding", **(headers or {})}
    if encoding:
        told["Content-Encoding"] = encoding
    return Response(body, media_type=media_type, headers=told)


def with_tree(head: Mapping[str, Any], name: str, tree: bytes) -> bytes:
    """A JSON object with a tree's own JSON, byte for byte, as its last field."""
    return json.dumps(head, separators=(",", ":")).encode("ascii")[:-1] + f',"{name}":'.encode() + tree + b"}"


def _made(render: Callable[[], bytes], encoding: str | None) -> tuple[bytes, str | None]:
    body = render()
    if encoding is None or len(body) < SMALL:
        return body, None
    return ENCODINGS[encoding](body), encoding


def accepted(header: str) -> str | None:
    """The encoding of ours that an Accept-Encoding header takes; `None` if it takes none."""
    parts = [part.replace(" ", "").lower().partition(";q=") for part in header.split(",")]
    taken = {name for name, _, weight in parts if not re.fullmatch(r"0(\.0*)?", weight)}
    refused = {name for name, _, weight in parts} - taken
    return next((e for e in ENCODINGS if e in taken or ("*" in taken and e not in refused)), None)
