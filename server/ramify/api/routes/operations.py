"""For operators and clients: what is served, whether it lives, its figures, and this API described."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import Field

import ramify
from ramify.api import wire_releases
from ramify.api.context import ContextDep
from ramify.api.documentation import METRICS, document
from ramify.api.names import Model, ModelList
from ramify.api.scopes import ScopedRoute, needs
from ramify.api.wire_common import Reply
from ramify.api.wire_releases import list_of
from ramify.service.errors import ServiceError, unknown_model


class Health(Reply):
    status: str


class Version(Reply):
    version: str
    model: str
    release: str
    remote: bool = Field(default=False, description="True if the policy is on another server.")


router = APIRouter(route_class=ScopedRoute)


@router.get("/livez", tags=["operations"], response_model=Health)
@needs("open")
async def livez() -> Health:
    """Tell that the process runs. It says nothing of the engines: a server whose engine has died ends by itself."""
    return Health(status="ok")


@router.get("/readyz", tags=["operations"], response_model=Health)
@needs("open")
async def readyz(context: ContextDep) -> Health:
    """Tell whether it can search: both engines answered a small request lately, and the log takes writes."""
    problem = await context.readiness.problem()
    if problem is not None:
        standing = context.readiness.standing
        known = problem in (standing.problem(), standing.waiting)
        raise ServiceError(
            "not_ready" if known else "engine_unavailable", f"not ready: {problem}", retry_after=5
        )
    await context.searches.spool.check()
    return Health(status="ready")


@router.get("/health", tags=["operations"], response_model=Health)
@needs("open")
async def health(context: ContextDep) -> Health:
    """The same as /readyz, by the name that vLLM uses."""
    return await readyz(context)


@router.get("/version", tags=["operations"], response_model=Version)
@needs("open")
async def version(context: ContextDep) -> Version:
    """Tell the versions of what runs here."""
    serving = context.serving
    return Version(
        version=ramify.__version__, model=serving.name, release=serving.release, remote=serving.remote
    )


@router.get("/metrics", tags=["operations"], responses=METRICS)
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


@router.get("/v1/models", tags=["models"], response_model=ModelList)
@needs("any")
async def models(context: ContextDep) -> ModelList:
    """List the served model, and every name that stands for a search with it."""
    return ModelList(data=list(context.names.listed(context.engines.max_model_len)))


@router.get("/v1/models/{name:path}", tags=["models"], response_model=Model)
@needs("any")
async def model(name: Annotated[str, Path(max_length=200)], context: ContextDep) -> Model:
    """One model, or one name for a search."""
    for model in context.names.listed(context.engines.max_model_len):
        if model.id == name:
            return model
    raise unknown_model(name, context.serving.name)


@router.get("/v1/releases", tags=["releases"], response_model=wire_releases.ReleaseList)
@needs("log")
async def releases(context: ContextDep) -> wire_releases.ReleaseList:
    """Every release, which one is active, and which were before."""
    return list_of(await context.releases.listing())
