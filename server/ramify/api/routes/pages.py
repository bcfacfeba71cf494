"""The viewer's pages and files. They hold no data: what they show comes over /v1 with the reader's own API key."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Response

from ramify.api.scopes import ScopedRoute, needs
from ramify.api.static_files import SECURITY, static_files
from ramify.service.errors import NotFound


class PageRoute(ScopedRoute):
    any_query = True


router = APIRouter(route_class=PageRoute, include_in_schema=False)
Seen = Annotated[str | None, Header(alias="If-None-Match", max_length=200)]


def served(name: str, seen: str | None) -> Response:
    """The file, or 304 where the reader has it already. Raises `NotFound`."""
    file = static_files().get(name)
    if file is None:
        raise NotFound(f"no file {name[:100]!r}")
    headers = SECURITY | {"ETag": file.etag}
    if seen == file.etag:
        return Response(status_code=304, headers=headers)
    return Response(file.body, media_type=file.media_type, headers=headers)


@router.get("/")
@needs("open")
async def trees_page(seen: Seen = None) -> Response:
    return served("trees.html", seen)


@router.get("/trees/{tree}")
@needs("open")
async def tree_page(tree: str, seen: Seen = None) -> Response:
    """The same page for every tree, known or not: who may see which is decided where the data is asked for."""
    return served("tree.html", seen)


@router.get("/search")
@needs("open")
async def search_page(seen: Seen = None) -> Response:
    return served("search.html", seen)


@router.get("/training")
@needs("open")
async def training_page(seen: Seen = None) -> Response:
    return served("training.html", seen)


@router.get("/static/{name:path}")
@needs("open")
async def static(name: str, seen: Seen = None) -> Response:
    return served(name, seen)
