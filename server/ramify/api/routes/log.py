"""The log: its trees, feedback on them, branches of them, and the readers that consume it.

A reader has a cursor, which is moved by compare-and-set on its ETag, and a lease against a second reader.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from ramify.api import convert, large_answers, wire_search
from ramify.api import wire_log as wire
from ramify.api.context import CallerDep, Context, ContextDep
from ramify.api.documentation import DOT, NDJSON, STREAM
from ramify.api.names import HEADER
from ramify.api.routes.search import Key, answered, idempotency, rendered
from ramify.api.scopes import ScopedRoute, needs
from ramify.api.wire_common import PLAIN
from ramify.api.wire_log import dot
from ramify.service.errors import BadRequest, ServiceError
from ramify.service.keys import Caller
from ramify.service.search_view import tree_id
from ramify.treelog import BadCursor, ConsumerConflict, Entry, Filters, json_line

GRAPHVIZ = "text/vnd.graphviz; charset=utf-8"
router = APIRouter(route_class=ScopedRoute)
Seq = Annotated[int | None, Query(ge=0, le=(1 << 63) - 1)]
Text = Annotated[str | None, Query(min_length=1, max_length=200, pattern=PLAIN)]
START = "^tree_[0-9a-f]{0,32}$"
Form = Annotated[Literal["json", "dot"], Query(alias="format")]
Id = Annotated[str, Path(max_length=64, description="Id of the tree (`tree_…`) or of its search (`srch_…`).")]


@router.get("/v1/trees", tags=["trees"], response_model=wire.TreeList, responses=NDJSON)
@needs("search", "log")
async def trees(
    context: ContextDep,
    caller: CallerDep,
    before: Seq = None,
    after: Seq = None,
    limit: Annotated[int | None, Query(ge=1, le=10_000)] = None,
    id_: Annotated[
        str | None, Query(alias="id", pattern=START, description="How its id starts, such as `tree_019a`.")
    ] = None,
    status: Text = None,
    model: Text = None,
    release: Text = None,
    algorithm: Text = None,
    task: Text = None,
    key: Text = None,
    min_value: Annotated[float | None, Query(ge=0, le=1)] = None,
    text: Text = None,
    min_nodes: Annotated[int | None, Query(ge=1, le=10_000_000)] = None,
    outcome: Annotated[
        Literal["right", "wrong", "none"] | None,
        Query(description="The latest outcome of the chosen answer; `none`: nobody judged it."),
    ] = None,
) -> Response | wire.TreeList:
    """The log, for people or for consumers.

    Without `after`: newest first, a page at a time (`before` is the last one's `seq`), filtered. With `after`: every
    tree and all feedback with a greater `seq`, in order, one JSON object a line, to the log's end as it was when
    the request came (the header `x-ramify-high-water`). A key without the scope `log` sees its own trees only, and
    cannot use `after`.
    """
    filters = Filters(
        tree_id=id_,
        status=status,
        model=model,
        release=release,
        algorithm=algorithm,
        task=task,
        key_id=key,
        min_value=min_value,
        text=text,
        min_nodes=min_nodes,
        verdict=outcome,
    )
    if after is None:
        return await _page(context, caller, before, limit or 50, filters)
    caller.require("log")
    if before is not None or filters != Filters():
        raise BadRequest("a consumer reads everything: give after and limit only", param="after")
    high_water = await context.log.high_water()
    return StreamingResponse(
        _lines(context, after, high_water, limit),
        media_type="application/x-ndjson",
        headers={"x-ramify-high-water": str(high_water), "Cache-Control": "no-store"},
    )


@router.get("/v1/trees/{tree}", tags=["trees"], response_model=wire.TreeReply, responses=DOT)
@needs("search", "log")
async def one(
    tree: Id, request: Request, context: ContextDep, caller: CallerDep, form: Form = "json"
) -> Response:
    """One tree with the feedback on it; `format=dot` for Graphviz."""
    entry = await _entry(context, caller, tree)
    if form == "dot":
        return await large_answers.answer(request, lambda: dot(entry.tree()).encode(), media_type=GRAPHVIZ)
    head = {
        "object": "tree",
        "id": entry.tree_id,
        "seq": entry.seq,
        "sha256": entry.sha256,
        "key": entry.key_id,
        "outcome": entry.outcome,
        "outcome_source": entry.outcome_source,
        "feedback": [wire.sent(wire.LaterVerdict, one) for one in await context.log.feedback(entry.tree_id)],
    }
    return await large_answers.answer(request, lambda: large_answers.with_tree(head, "tree", entry.body))


@router.delete("/v1/trees/{tree}", tags=["trees"], name="delete", response_model=wire.Deleted)
@needs("log")
async def delete_tree(tree: Id, context: ContextDep) -> wire.Deleted:
    """Forget a tree, the feedback on it, and the kept answer of its Idempotency-Key."""
    known = tree_id(tree)
    if known is None or not await context.log.delete(known):
        raise ServiceError("not_found", f"no tree {tree[:60]!r}", param="tree")
    return wire.Deleted(id=known)


@router.post("/v1/trees/{tree}/feedback", tags=["trees"], response_model=wire.LaterVerdict)
@needs("feedback")
async def feedback(
    tree: Id, body: wire.FeedbackRequest, context: ContextDep, caller: CallerDep
) -> wire.LaterVerdict:
    """Say afterwards whether an answer was right. On the chosen answer it is the tree's `outcome` from then on. The
    trainer learns from it only if the API key may teach (`train_feedback`)."""
    entry = await _entry(context, caller, tree)
    node = body.node
    if node is None:
        chosen = (await asyncio.to_thread(entry.tree)).answer
        if chosen is None and body.answer is None:
            raise BadRequest("the tree has no answer: name a node, or give the answer's text", param="node")
        if chosen is not None and body.answer in (None, chosen.text, chosen.final):
            node = chosen.node
    if node is not None and node >= entry.n_nodes:
        raise BadRequest(f"is {node}; the tree has nodes 0 to {entry.n_nodes - 1}", param="node")
    return await context.log.add_feedback(
        entry.tree_id,
        body.outcome,
        source=body.source,
        key_id=caller.key_id,
        node=node,
        answer=body.answer,
        comment=body.comment,
        train=caller.train_feedback,
    )


@router.post(
    "/v1/trees/{tree}/branch", tags=["trees"], response_model=wire_search.SearchReply, responses=STREAM
)
@needs("search")
async def branch(
    tree: Id,
    body: wire_search.BranchRequest,
    request: Request,
    context: ContextDep,
    caller: CallerDep,
    idempotency_key: Key = None,
) -> Response:
    """Search on from a node of a logged tree: a new tree, whose prompt is the old one and its answer up to the node.

    Answers are whole, from the first prompt of all, and are judged so; the budget counts new tokens. The new tree names
    its `parent_tree`, and the node in `origin`. Answered, streamed and replayed as POST /v1/search is.
    """
    if HEADER in request.headers:
        raise BadRequest("is not read on this route: put search into the body", param=HEADER)
    entry = await _entry(context, caller, tree)
    about = f"branch of {entry.tree_id}: "
    key = idempotency(idempotency_key, about, body, lambda tree: rendered(tree, body, context))
    spec = convert.branch_spec(body, await asyncio.to_thread(entry.tree))
    return await answered(context.searches.start(spec, caller, key), body, request, context)


async def _page(
    context: Context, caller: Caller, before: int | None, limit: int, filters: Filters
) -> wire.TreeList:
    if limit > (most := context.settings.limits.page):
        raise BadRequest(f"too large: {limit} > {most}", param="limit")
    owner = caller.owner_filter()
    if owner is not None:
        if filters.key_id not in (None, owner):
            return wire.TreeList(data=[], has_more=False, next_before=None)
        filters = replace(filters, key_id=owner)
    # one more than the page, to know whether there is another
    summaries = await context.log.list(before=before, limit=limit + 1, filters=filters)
    page, more = list(summaries[:limit]), len(summaries) > limit
    return wire.TreeList(data=page, has_more=more, next_before=page[-1].seq if more else None)


async def _entry(context: Context, caller: Caller, tree: str) -> Entry:
    """Return a tree that the caller may see. Raise `ServiceError` (`not_found`)."""
    known = tree_id(tree)
    entry = await context.log.get(known, key_id=caller.owner_filter()) if known else None
    if entry is None:
        raise ServiceError("not_found", f"no tree {tree[:60]!r}", param="tree")
    return entry


async def _lines(context: Context, after: int, high_water: int, limit: int | None) -> AsyncIterator[bytes]:
    async for record in context.log.read(after, up_to=high_water, limit=limit):
        yield json_line(record)


# -- readers ---------------------------------------------------------------------------------------------------


Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match", max_length=40, description="The ETag last seen; absent to register a new consumer."
    ),
]


@router.get("/v1/consumers", tags=["consumers"], response_model=wire.ConsumerList)
@needs("log")
async def consumers(context: ContextDep) -> wire.ConsumerList:
    """Every registered reader, by name. Retention deletes nothing that one of them has still to read."""
    return wire.ConsumerList(data=list(await context.log.consumers()))


@router.get("/v1/consumers/{name}", tags=["consumers"], response_model=wire.ConsumerReply)
@needs("log")
async def consumer(name: Name, context: ContextDep, response: Response) -> wire.ConsumerReply:
    """A reader's cursor and lease; the ETag is what PUT wants in `If-Match`."""
    reader = await context.log.get_consumer(name)
    if reader is None:
        raise ServiceError("not_found", f"no consumer {name!r}; PUT registers it", param="name")
    response.headers["ETag"] = f'"{reader.version}"'
    return reader


@router.put("/v1/consumers/{name}", tags=["consumers"], name="put", response_model=wire.ConsumerReply)
@needs("log")
async def put_consumer(
    name: Name,
    body: wire.ConsumerPut,
    context: ContextDep,
    caller: CallerDep,
    response: Response,
    if_match: IfMatch = None,
) -> wire.ConsumerReply:
    """Register a reader, move its cursor, take, renew or give back its lease. 409 if somebody else was faster or
    holds the lease, which is its owner's and its API key's."""
    try:
        reader = await context.log.put_consumer(
            name,
            version=_version(if_match),
            cursor=body.cursor,
            owner=body.owner,
            lease_seconds=body.lease_seconds,
            rewind=body.rewind,
            key_id=caller.key_id,
        )
    except ConsumerConflict as error:
        raise ServiceError(error.code, str(error)) from error
    except BadCursor as error:
        raise BadRequest(str(error), param="cursor") from error
    response.headers["ETag"] = f'"{reader.version}"'
    return reader


@router.delete("/v1/consumers/{name}", tags=["consumers"], name="delete", response_model=wire.ConsumerDeleted)
@needs("log")
async def delete_consumer(name: Name, context: ContextDep) -> wire.ConsumerDeleted:
    """Forget a reader that is gone, so that retention waits for it no longer. 409 while it is leased."""
    try:
        known = await context.log.delete_consumer(name)
    except ConsumerConflict as error:
        raise ServiceError(error.code, str(error)) from error
    if not known:
        raise ServiceError("not_found", f"no consumer {name!r}", param="name")
    return wire.ConsumerDeleted(name=name)


def _version(if_match: str | None) -> int | None:
    if if_match is None:
        return None
    tag = re.fullmatch(r'(?:W/)?"?(\d{1,18})"?', if_match.strip())
    if tag is None:
        raise BadRequest('must be an ETag as GET sends it, such as "3"', param="If-Match")
    return int(tag[1])
