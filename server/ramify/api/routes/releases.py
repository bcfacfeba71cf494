"""GET /v1/releases: what could be served and what is; read only."""

from __future__ import annotations

from fastapi import APIRouter

from ramify.api import wire_releases as wire
from ramify.api.context import ContextDep
from ramify.api.convert_releases import list_of
from ramify.api.scopes import ScopedRoute, needs

router = APIRouter(route_class=ScopedRoute, tags=["releases"])


@router.get("/v1/releases", response_model=wire.ReleaseList)
@needs("log")
async def releases(context: ContextDep) -> wire.ReleaseList:
    """Every release, which one is active, and which were before."""
    return list_of(await context.releases.listing())
