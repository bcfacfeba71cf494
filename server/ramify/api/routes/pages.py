"""The viewer's pages and files: read once, served from memory, under headers that let nothing else in.

They hold no data: what they show comes over /v1 with the reader's own API key. A request names a file by its key in a
table made at start-up, so no path is ever joined to one that came from outside.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Annotated

from fastapi import APIRouter, Header, Response

from ramify.api.scopes import ScopedRoute, needs
from ramify.service.errors import ServiceError

router = APIRouter(route_class=ScopedRoute, include_in_schema=False)
Seen = Annotated[str | None, Header(alias="If-None-Match", max_length=200)]


TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
"""Kinds of file that are served; licences and notes lie beside them and are not."""

SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
"""Scripts and styles from this server's own files only, nothing inline, in no frame."""


@lru_cache(1)
def static_files() -> Mapping[str, tuple[bytes, str]]:
    """Read every file that is served, and its ETag, by its path below `web`, such as `vendor/d3-zoom.js`."""
    return dict(_below(files("ramify") / "web", ""))


def _below(folder: Traversable, prefix: str) -> Iterator[tuple[str, tuple[bytes, str]]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _below(entry, f"{prefix}{entry.name}/")
        elif _kind(entry.name) in TYPES:
            body = entry.read_bytes()
            yield f"{prefix}{entry.name}", (body, f'"{hashlib.sha256(body).hexdigest()[:24]}"')


def _kind(name: str) -> str:
    return name.rpartition(".")[2]


def served(name: str, seen: str | None) -> Response:
    """Answer with the file, or 304 if the reader has it already. Raise `ServiceError`."""
    if name not in static_files():
        raise ServiceError("not_found", f"no file {name[:100]!r}")
    body, etag = static_files()[name]
    headers = SECURITY | {"ETag": etag}
    if seen == etag:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=TYPES[_kind(name)], headers=headers)


@router.get("/")
@needs("open", any_query=True)
async def trees_page(seen: Seen = None) -> Response:
    return served("trees.html", seen)


@router.get("/trees/{tree}")
@needs("open", any_query=True)
async def tree_page(tree: str, seen: Seen = None) -> Response:
    """Send the same page for every tree, known or not: the routes of its data decide who may see it."""
    return served("tree.html", seen)


@router.get("/search")
@needs("open", any_query=True)
async def search_page(seen: Seen = None) -> Response:
    return served("search.html", seen)


@router.get("/training")
@needs("open", any_query=True)
async def training_page(seen: Seen = None) -> Response:
    return served("training.html", seen)


@router.get("/static/{name:path}")
@needs("open", any_query=True)
async def static(name: str, seen: Seen = None) -> Response:
    return served(name, seen)
