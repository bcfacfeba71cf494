"""The operators' routes: which release is served, and the drain. They take ids, never paths (CVE-2026-86793, -119706).

Nothing here is on the public port.
"""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

from fastapi import APIRouter, Path

from ramify.api import wire_releases as wire
from ramify.api.context import ContextDep
from ramify.api.scopes import StrictRoute
from ramify.api.wire_releases import activated_of, list_of, release_of

ReleaseId = Annotated[str, Path(max_length=100, alias="release")]


router = APIRouter(route_class=StrictRoute, tags=["admin"])


@router.get("/admin/releases", response_model=wire.ReleaseList)
async def releases(context: ContextDep) -> wire.ReleaseList:
    """Every release, which one is active, and which were before."""
    return list_of(await context.releases.listing())


@router.put("/admin/releases/{release}", response_model=wire.Release)
async def record(release: ReleaseId, body: wire.Verdict, context: ContextDep) -> wire.Release:
    """Record a gate's decision. A rejected release is never activated."""
    row = await context.releases.record(release, body.state, body.figures)
    return release_of(row, context.serving.release)


@router.post("/admin/releases/rollback", response_model=wire.Activated)
async def rollback(context: ContextDep, body: wire.Activate | None = None) -> wire.Activated:
    """Serve the release that was active before."""
    asked = body or wire.Activate()
    return activated_of(await context.releases.rollback(asked.deadline_seconds, asked.note))


@router.post("/admin/releases/{release}/activate", response_model=wire.Activated)
async def activate(
    release: ReleaseId, context: ContextDep, body: wire.Activate | None = None
) -> wire.Activated:
    """Serve a release. It answers once the release is served, or says why the one before still is."""
    asked = body or wire.Activate()
    return activated_of(await context.releases.activate(release, asked.deadline_seconds, asked.note))


@router.post("/admin/drain", response_model=wire.Drained)
async def drain(context: ContextDep, body: wire.Drain | None = None) -> wire.Drained:
    """Take no more searches, for ever, and answer once the running ones have ended.

    If the client leaves, the drain goes on.
    """
    began = time.monotonic()
    await asyncio.shield(context.searches.drain((body or wire.Drain()).deadline_seconds))
    return wire.Drained(seconds=time.monotonic() - began)
