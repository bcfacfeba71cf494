"""The ASGI application."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.types import ASGIApp

import ramify
from ramify.api import errors
from ramify.api.context import Context
from ramify.api.middleware import BodyLimit, HostGuard, OriginGuard, RequestIds
from ramify.api.openai import completions, responses, tokens
from ramify.api.routes import consumers, operations, pages, search, trees

DESCRIPTION = "Tree search for language models: the best answer of a tree, and every tree in a durable log."


def routes() -> FastAPI:
    """Every route, without what happens around them and what they stand on: enough to describe them."""
    app = FastAPI(
        title="Ramify",
        version=ramify.__version__,
        description=DESCRIPTION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    errors.install(app)
    for module in (
        search,
        completions,
        responses,
        tokens,
        trees,
        consumers,
        operations,
        pages,
    ):
        app.include_router(module.router)
    return app


def application(context: Context) -> ASGIApp:
    """The whole of it: ids outermost, so that every answer carries one."""
    inner = routes()
    inner.state.context = context
    app: ASGIApp = BodyLimit(inner, context.settings.limits.body_bytes)
    if context.keyring.open:
        app = HostGuard(OriginGuard(app))
    return RequestIds(app, context.metrics)
