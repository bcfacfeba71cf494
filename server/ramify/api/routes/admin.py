"""The operators' routes: which release is served, and the drain. They take ids, never paths (CVE-2026-86793, -119706).

Nothing here is on the public port.
"""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

from fastapi import APIRouter, Path

from ramify.api import wire_releases as wire
from ramify.api.context import Context, ContextDep
from ramify.api.scopes import StrictRoute
from ramify.api.wire_releases import activated_of, fleet_of, list_of, release_of
from ramify.service.errors import BadRequest, ServiceError
from ramify.service.fleet import Fleet

ReleaseId = Annotated[str, Path(max_length=100, alias="release")]
ReplicaId = Annotated[str, Path(max_length=100, alias="replica")]


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
    if context.fleet is not None:
        mode = asked.mode or "rolling"
        return activated_of(await context.fleet.rollback(asked.deadline_seconds, asked.note, mode))
    _require_no_mode(asked)
    return activated_of(await context.releases.rollback(asked.deadline_seconds, asked.note))


@router.post("/admin/releases/{release}/activate", response_model=wire.Activated)
async def activate(
    release: ReleaseId, context: ContextDep, body: wire.Activate | None = None
) -> wire.Activated:
    """Serve a release. It answers once the release is served, or says why the one before still is.

    In a fleet every replica serves it, whichever is asked, or none does."""
    asked = body or wire.Activate()
    if context.fleet is not None:
        grace, mode = asked.deadline_seconds, asked.mode or "rolling"
        return activated_of(await context.fleet.activate(release, grace, asked.note, mode=mode))
    _require_no_mode(asked)
    return activated_of(await context.releases.activate(release, asked.deadline_seconds, asked.note))


def _require_no_mode(asked: wire.Activate) -> None:
    if asked.mode is not None:
        raise BadRequest("has no effect: this server is in no fleet", param="mode")


@router.get("/admin/fleet", response_model=wire.FleetState)
async def fleet(context: ContextDep) -> wire.FleetState:
    """The fleet that this server belongs to: what is served, the last activation, and every replica."""
    mine = _fleet(context)
    return fleet_of(str(mine.settings.name), await mine.store.view())


@router.post("/admin/fleet/replicas/{replica}/restore", response_model=wire.FleetState)
async def restore(replica: ReplicaId, context: ContextDep) -> wire.FleetState:
    """Take an evicted replica back: it catches up, and is ready then."""
    mine = _fleet(context)
    await mine.restore(replica)
    return fleet_of(str(mine.settings.name), await mine.store.view())


def _fleet(context: Context) -> Fleet:
    if context.fleet is None:
        raise ServiceError("not_found", "this server is in no fleet (settings: fleet.name)")
    return context.fleet


@router.post("/admin/drain", response_model=wire.Drained)
async def drain(context: ContextDep, body: wire.Drain | None = None) -> wire.Drained:
    """Take no more searches, for ever, and answer once the running ones have ended.

    If the client leaves, the drain goes on.
    """
    began = time.monotonic()
    await asyncio.shield(context.searches.drain((body or wire.Drain()).deadline_seconds))
    return wire.Drained(seconds=time.monotonic() - began)
