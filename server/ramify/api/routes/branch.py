"""POST /v1/trees/{tree}/branch: search on from a node of a logged tree."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response

from ramify.api import convert
from ramify.api import wire_search as wire
from ramify.api.context import CallerDep, ContextDep
from ramify.api.documentation import STREAM
from ramify.api.routes.search import Key, answered, once_of
from ramify.api.routes.trees import Id
from ramify.api.scopes import ScopedRoute, needs
from ramify.service.errors import NotFound
from ramify.service.ids import tree_id

router = APIRouter(route_class=ScopedRoute, tags=["trees"])


@router.post("/v1/trees/{tree}/branch", response_model=wire.SearchReply, responses=STREAM)
@needs("search")
async def branch(
    tree: Id,
    body: wire.BranchRequest,
    request: Request,
    context: ContextDep,
    caller: CallerDep,
    idempotency_key: Key = None,
) -> Response:
    """Search on from a node of a logged tree: a new tree, whose prompt is the old one and its answer up to the node.

    Answers are whole, from the first prompt of all, and are judged so; the budget counts new tokens. The new tree names
    its `parent_tree`, and the node in `origin`. Answered, streamed and replayed as POST /v1/search is.
    """
    known = tree_id(tree)
    entry = await context.log.get(known) if known else None
    if entry is None or not context.searches.visible(entry.key_id, caller):
        raise NotFound(f"no tree {tree[:60]!r}", param="tree")
    once = once_of(body, idempotency_key, context, about=f"branch of {entry.tree_id}: ")
    ask = convert.branch_of(body, await asyncio.to_thread(entry.tree))
    return await answered(ask, body, request, context, caller, once)
