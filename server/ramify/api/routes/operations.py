"""For operators and orchestrators: liveness, readiness, version, metrics, the OpenAPI document. No key is needed."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

import ramify
from ramify.api import wire_trees as wire
from ramify.api.context import ContextDep
from ramify.api.documentation import METRICS, document
from ramify.api.scopes import ScopedRoute, needs
from ramify.service.errors import EngineUnavailable

router = APIRouter(route_class=ScopedRoute, tags=["operations"])


@router.get("/livez", response_model=wire.Health)
@needs("open")
async def livez() -> wire.Health:
    """Whether the process runs. It says nothing of the engines: a server whose engine has died ends by itself."""
    return wire.Health(status="ok")


@router.get("/readyz", response_model=wire.Health)
@needs("open")
async def readyz(context: ContextDep) -> wire.Health:
    """Whether it can search: both engines answered a small request lately, and the log takes writes."""
    problem = await context.readiness.problem()
    if problem is not None:
        raise EngineUnavailable(f"not ready: {problem}", retry_after=5)
    await context.searches.spool.check()
    return wire.Health(status="ready")


@router.get("/health", response_model=wire.Health)
@needs("open")
async def health(context: ContextDep) -> wire.Health:
    """The same as /readyz, by the name that vLLM uses."""
    return await readyz(context)


@router.get("/version", response_model=wire.Version)
@needs("open")
async def version(context: ContextDep) -> wire.Version:
    """What runs here."""
    return wire.Version(
        version=ramify.__version__, model=context.serving.name, release=context.serving.release
    )


@router.get("/metrics", responses=METRICS)
@needs("open")
async def metrics(context: ContextDep) -> Response:
    """Figures for Prometheus."""
    context.searches.sample()
    return Response(context.metrics.text(), media_type=CONTENT_TYPE_LATEST)


@router.get("/openapi.json", include_in_schema=False)
@needs("open")
async def openapi(request: Request) -> Response:
    """This API, described."""
    content: dict[str, Any] = document(request.app)
    return JSONResponse(content)
