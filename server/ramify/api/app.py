"""The two ASGI applications: the public one, and the operators' on a listener of its own."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from starlette.types import ASGIApp

import ramify
from ramify.api import errors
from ramify.api.context import Context
from ramify.api.middleware import (
    admin_refusal,
    body_limited,
    guarded,
    host_refusal,
    identified,
    json_refusal,
    origin_refusal,
)
from ramify.api.openai import completions, responses, tokens
from ramify.api.routes import admin, batch, log, operations, pages, search

DESCRIPTION = "Tree search for language models: the best answer of a tree, and every tree in a durable log."
PUBLIC = (search, batch, completions, responses, tokens, log, operations, pages)
"""Modules whose routes are on the public port."""
LARGEST_ADMIN_BODY = 1 << 17
"""Bytes: a gate's figures, and room to spare."""


def routes() -> FastAPI:
    """Make the public routes alone, without context and middleware: enough to describe them."""
    return _routed("Ramify", DESCRIPTION, *(module.router for module in PUBLIC))


def admin_routes() -> FastAPI:
    """Make the operators' routes alone."""
    return _routed("Ramify admin", "", admin.router)


def _routed(title: str, description: str, *routers: APIRouter) -> FastAPI:
    app = FastAPI(
        title=title,
        version=ramify.__version__,
        description=description,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    errors.install(app)
    for router in routers:
        app.include_router(router)
    return app


def application(context: Context) -> ASGIApp:
    """Make the public application. Request ids are outermost, so that every answer carries one."""
    inner = routes()
    inner.state.context = context
    app: ASGIApp = body_limited(inner, context.settings.limits.body_bytes)
    if context.keyring.open:
        app = guarded(guarded(app, origin_refusal), host_refusal)
    return identified(app, context.metrics, context.settings.replica)


def admin_application(context: Context, digest: bytes | None) -> ASGIApp:
    """Make the operators' application.

    digest: sha256 of the admin key; if it is None, only requests to this machine's own names are answered. Without the
    key not even the existence of a route is told: its check stands before the routing.
    """
    inner = admin_routes()
    inner.state.context = context
    app: ASGIApp = guarded(body_limited(inner, LARGEST_ADMIN_BODY), json_refusal)
    app = guarded(app, origin_refusal)
    app = guarded(app, host_refusal if digest is None else admin_refusal(digest))
    return identified(app, context.metrics)
