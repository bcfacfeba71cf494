"""Searching several prompts on one budget: POST /v1/search/batch, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from starlette.requests import ClientDisconnect

from ramify.api import convert, large_answers, streaming
from ramify.api import wire_batch as wire
from ramify.api.context import CallerDep, Context, ContextDep
from ramify.api.documentation import BATCH_EXAMPLES, STREAM
from ramify.api.names import SearchHeader
from ramify.api.routes.search import Key, idempotency, news_of
from ramify.api.scopes import ScopedRoute, needs
from ramify.api.streaming import unless_gone
from ramify.search.tree import Tree
from ramify.service.batches import ReplayedBatch, RunningBatch
from ramify.treelog import tree_json

router = APIRouter(route_class=ScopedRoute, tags=["search"])
Id = Annotated[str, Path(max_length=64, description="Id of the batch (`batch_…`).")]


@router.post(
    "/v1/search/batch", response_model=wire.BatchReply, responses=STREAM, openapi_extra=BATCH_EXAMPLES
)
@needs("search")
async def batch(
    body: wire.BatchRequest,
    request: Request,
    context: ContextDep,
    caller: CallerDep,
    idempotency_key: Key = None,
    search_header: SearchHeader = None,
) -> Response:
    """Search several prompts on one budget, which goes where it is expected to bring most.

    Each prompt is searched, logged and can be cancelled like a single one. With `stream`, events come as for a single
    search, each with the `index` of its prompt: `batch.started`, `search.progress`, a `search.completed` for each
    prompt as soon as it is settled, and `batch.completed`, or `error`. If the client leaves, all searches are stopped.
    """
    body = context.names.resolve_native(body, search_header)
    key = idempotency(idempotency_key, "batch", body)
    found = await unless_gone(request.receive, context.batches.start(convert.batch_spec(body), caller, key))
    headers = {"x-ramify-batch-id": found.id}
    if body.stream:
        return streaming.EventStream(_events(found, body, context), headers)
    trees = found.trees if isinstance(found, ReplayedBatch) else await _ended(found, request)
    return await large_answers.answer(
        request, lambda: _rendered(found.id, trees, body, context), headers=headers
    )


@router.post("/v1/search/batch/{batch_id}/cancel", response_model=wire.BatchReply)
@needs("search", owned="batch_id")
async def cancel(batch_id: Id, request: Request, context: ContextDep, caller: CallerDep) -> wire.BatchReply:
    """End every search of a running batch now; their best answers so far."""
    trees = await context.batches.cancel(batch_id, caller).logged()
    return convert.batch_reply(batch_id, trees, context.serving, 1)


async def _ended(running: RunningBatch, request: Request) -> list[Tree]:
    """Wait until the batch has ended. If the client leaves first, stop it and raise `ClientDisconnect`."""
    try:
        return await unless_gone(request.receive, running.logged())
    except ClientDisconnect:
        running.stop("cancelled", "disconnect")
        raise


def _rendered(number: str, trees: Sequence[Tree], body: wire.BatchRequest, context: Context) -> bytes:
    """Write the answer of an ended batch."""
    head = convert.batch_completed(number, trees).model_dump_json().encode()
    results = b",".join(_answer(i, tree, body, context) for i, tree in enumerate(trees))
    return head[:-1] + b',"results":[' + results + b"]}"


def _answer(index: int, tree: Tree, body: wire.BatchRequest, context: Context) -> bytes:
    """Write what one prompt came to, with its tree if the request wants it."""
    reply = convert.batch_answer(index, tree, context.serving, body.n)
    if body.include_tree:
        return large_answers.with_tree(
            reply.model_dump(exclude={"tree_document"}), "tree_document", tree_json(tree)
        )
    return reply.model_dump_json(exclude={"tree_document"}).encode()


# -- as events ---------------------------------------------------------------------------------------------------


async def _events(
    found: RunningBatch | ReplayedBatch, body: wire.BatchRequest, context: Context
) -> AsyncIterator[bytes]:
    if isinstance(found, ReplayedBatch):
        yield streaming.event("batch.started", convert.batch_started(found.id, found.trees, context.serving))
        for i, tree in enumerate(found.trees):
            yield streaming.event(
                "search.completed", await asyncio.to_thread(_answer, i, tree, body, context)
            )
        yield streaming.event("batch.completed", convert.batch_completed(found.id, found.trees))
        return
    try:
        trees = [one.tree for one in found.searches]
        yield streaming.event("batch.started", convert.batch_started(found.id, trees, context.serving))
        async for chunk in _growing(found, body, context):
            yield chunk
        yield streaming.event("batch.completed", convert.batch_completed(found.id, await found.logged()))
    finally:
        found.stop("cancelled", "disconnect")  # without effect on those that have ended


async def _growing(running: RunningBatch, body: wire.BatchRequest, context: Context) -> AsyncIterator[bytes]:
    """Yield each search's answer as soon as it is logged, progress no oftener than the setting says, and pings while
    there is neither."""
    settings, loop = context.settings.stream, asyncio.get_running_loop()
    nodes = body.stream_options is not None and body.stream_options.nodes
    left = {
        search.life: (i, search, news_of(search, nodes))
        for i, search in enumerate(running.searches)
        if search.life
    }
    every, sent, looked = min(settings.progress_seconds, settings.ping_seconds), loop.time(), loop.time()
    while left:
        patience = max(0.0, looked + every - loop.time())
        done, _ = await asyncio.wait(left, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        chunks = []
        for life in done:
            i, search, _ = left.pop(life)
            answer = await asyncio.to_thread(_answer, i, await search.logged(), body, context)
            chunks.append(streaming.event("search.completed", answer))
        if loop.time() >= looked + every:
            looked = loop.time()
            news = [(i, tell()) for i, _, tell in left.values()]
            chunks += [
                streaming.event("search.progress", wire.BatchProgressed(index=i, **dict(told)))
                for i, told in news
                if told is not None
            ]
        if not chunks and loop.time() - sent >= settings.ping_seconds:
            chunks = [streaming.PING]
        for chunk in chunks:
            sent = loop.time()
            yield chunk
