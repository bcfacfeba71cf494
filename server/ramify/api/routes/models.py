"""GET /v1/models, in OpenAI's shape."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from ramify.api import wire_trees as wire
from ramify.api.context import ContextDep
from ramify.api.scopes import ScopedRoute, needs
from ramify.service.prepare import unknown_model

router = APIRouter(route_class=ScopedRoute, tags=["models"])


@router.get("/v1/models", response_model=wire.ModelList)
@needs("any")
async def models(context: ContextDep) -> wire.ModelList:
    """What is served: the model, and every name that stands for a search with it."""
    return wire.ModelList(data=list(context.names.listed(context.engines.max_model_len)))


@router.get("/v1/models/{name:path}", response_model=wire.Model)
@needs("any")
async def model(name: Annotated[str, Path(max_length=200)], context: ContextDep) -> wire.Model:
    """One model, or one name for a search."""
    for model in context.names.listed(context.engines.max_model_len):
        if model.id == name:
            return model
    raise unknown_model(name, context.serving.name)
