"""The operators' application, on a listener of its own: which release is served, and the drain.

Nothing here is on the public port. Without the key not even the existence of a route is told: `AdminKey` stands before
the routing. It takes ids, never paths (CVE-2026-86793, -119706).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from typing import Annotated

from fastapi import APIRouter, FastAPI, Path
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

import ramify
from ramify.api import errors
from ramify.api import wire_releases as wire
from ramify.api.context import Context, ContextDep
from ramify.api.middleware import BodyLimit, HostGuard, OriginGuard, RequestIds
from ramify.api.scopes import StrictRoute
from ramify.api.wire_releases import activated_of, list_of, release_of
from ramify.service.errors import ServiceError

LARGEST_BODY = 1 << 17
"""Bytes: a gate's figures, and room to spare."""
ReleaseId = Annotated[str, Path(max_length=100, alias="release")]


class AdminRoute(StrictRoute):
    only_json = True


router = APIRouter(route_class=AdminRoute, tags=["admin"])


@router.get("/admin/releases", response_model=wire.ReleaseList)
async def releases(context: ContextDep) -> wire.ReleaseList:
    """Every release, which one is active, and which were before."""
    return list_of(await context.releases.listing())


@router.put("/admin/releases/{release}", response_model=wire.Release)
async def record(release: ReleaseId, body: wire.Verdict, context: ContextDep) -> wire.Release:
    """Record a gate's verdict. A rejected release is never activated."""
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
    """Take no more searches, for ever, and answer once the running ones have ended."""
    began = time.monotonic()
    await asyncio.shield(context.searches.drain((body or wire.Drain()).deadline_seconds))
    return wire.Drained(seconds=time.monotonic() - began)


class AdminKey:
    """Lets nothing pass but what carries the admin key; without one configured, whoever is on this machine."""

    def __init__(self, app: ASGIApp, digest: bytes) -> None:
        self.app, self.digest = app, digest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._known(Headers(scope=scope).get("authorization", "")):
            refusal = ServiceError("invalid_api_key", "send the admin key: Authorization: Bearer <key>")
            await errors.service_response(refusal)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _known(self, authorization: str) -> bool:
        scheme, _, secret = authorization.partition(" ")
        given = hashlib.sha256(secret.strip().encode()).digest()
        return scheme.lower() == "bearer" and hmac.compare_digest(given, self.digest)


def admin_routes() -> FastAPI:
    """Every route of the listener, without what happens around them and what they stand on."""
    app = FastAPI(
        title="Ramify admin",
        version=ramify.__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    errors.install(app)
    app.include_router(router)
    return app


def admin_application(context: Context, digest: bytes | None) -> ASGIApp:
    """digest: sha256 of the admin key; `None` where there is none, and then only this machine's names are answered."""
    inner = admin_routes()
    inner.state.context = context
    app: ASGIApp = OriginGuard(BodyLimit(inner, LARGEST_BODY))
    app = HostGuard(app) if digest is None else AdminKey(app, digest)
    return RequestIds(app, context.metrics)
