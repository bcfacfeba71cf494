"""Searching: POST /v1/search, its state, its end, and POST /v1/value."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from ramify.api import convert, large_answers, streaming
from ramify.api import wire_search as wire
from ramify.api.context import CallerDep, Context, ContextDep
from ramify.api.documentation import CONTINUE_EXAMPLES, SEARCH_EXAMPLES, STREAM
from ramify.api.names import SearchHeader
from ramify.api.scopes import ScopedRoute, needs
from ramify.api.streaming import unless_gone
from ramify.search.tree import Tree
from ramify.service.idempotency import IdempotencyKey, ReplayedAnswer
from ramify.service.judging import judge_continuations
from ramify.service.search_view import TreeDelta, tree_id
from ramify.service.searches import RunningSearch
from ramify.treelog import tree_json

router = APIRouter(route_class=ScopedRoute, tags=["search"])
Id = Annotated[str, Path(max_length=64, description="Id of the search (`srch_…`) or of its tree (`tree_…`).")]
Follow = Annotated[bool, Query(description="Answer with Server-Sent Events.")]
Key = Annotated[
    str | None,
    Header(alias="Idempotency-Key", min_length=1, max_length=200, description="One search for one key."),
]


@router.post("/v1/search", response_model=wire.SearchReply, responses=STREAM, openapi_extra=SEARCH_EXAMPLES)
@needs("search")
async def search(
    body: wire.SearchRequest,
    request: Request,
    context: ContextDep,
    caller: CallerDep,
    idempotency_key: Key = None,
    search_header: SearchHeader = None,
) -> Response:
    """Search a tree for the best answer.

    The answer comes as JSON, or with `stream` as events: `search.started`, any number of `search.progress`, and
    `search.completed` with the same object, or `error`. If the client leaves, the search is stopped and logged as
    `cancelled`. With `Idempotency-Key`, the answer of a search that ran to its end is replayed for 24 hours to the
    same API key; another body under the same key is refused with 422, asking while it runs with 409.
    """
    body = context.names.resolve_native(body, search_header)
    key = idempotency(idempotency_key, "", body, lambda tree: rendered(tree, body, context))
    return await answered(
        context.searches.start(convert.search_spec(body), caller, key), body, request, context
    )


@router.post(
    "/v1/search/{search_id}/continue",
    response_model=wire.SearchReply,
    responses=STREAM,
    openapi_extra=CONTINUE_EXAMPLES,
)
@needs("search")
async def go_on(
    search_id: Id,
    body: wire.ContinueRequest,
    request: Request,
    context: ContextDep,
    caller: CallerDep,
    idempotency_key: Key = None,
) -> Response:
    """Let a search that has ended, or was interrupted by the end of its server, go on exactly where it was.

    `budget` limits the whole of it: what it has spent counts. The answer is that of POST /v1/search, of a search and a
    tree with ids of their own; `continues` names the one that they go on from, whose tree stays in the log. Nothing
    that has landed is drawn again. Refused with 409 and the reason are a running search, one that was taken on already,
    one of a batch, one whose answer was settled, and one that began with a release that is not served.
    """
    key = idempotency(
        idempotency_key,
        f"continue {tree_id(search_id)}",
        body,
        lambda tree: rendered(tree, body, context),
    )
    spec = convert.continue_spec(body)
    return await answered(context.searches.go_on(search_id, spec, caller, key), body, request, context)


async def answered(
    starting: Coroutine[Any, Any, RunningSearch | ReplayedAnswer],
    body: wire.AnswerOptions,
    request: Request,
    context: Context,
) -> Response:
    """Start a search, and answer as JSON or as a stream; stop if the client leaves."""
    search = await unless_gone(request.receive, starting)
    headers = headers_of(search)
    if body.stream:
        return streaming.EventStream(_events(search, body, context), headers)
    if isinstance(search, ReplayedAnswer):
        return await large_answers.answer(request, lambda: search.body, headers=headers)
    tree = await answered_tree(search, request)
    return await large_answers.answer(request, lambda: rendered(tree, body, context), headers=headers)


async def answered_tree(running: RunningSearch, request: Request) -> Tree:
    """Wait until a search has ended and its tree is logged. If the client leaves first, stop the search and raise
    `ClientDisconnect`."""
    try:
        return await unless_gone(request.receive, running.answered())
    except ClientDisconnect:
        running.stop("cancelled", "disconnect")
        raise


@router.get("/v1/search/{search_id}", response_model=wire.SearchReply, responses=STREAM)
@needs("search", "log", owned="search_id")
async def state(
    search_id: Id, context: ContextDep, caller: CallerDep, stream: Follow = False
) -> wire.SearchReply | Response:
    """The state of a search: its best answer so far while it runs, its answer once it has ended.

    With `stream`, its events from now on, as those of POST /v1/search. Whoever follows a search may leave: it goes on.
    """
    running = context.searches.find(search_id, caller)
    if running is not None and stream:
        return streaming.EventStream(_followed(running, wire.AnswerOptions(), context), headers_of(running))
    if running is not None:
        return convert.running_reply(running, context.serving)
    done = _whole(await context.searches.finished(search_id, caller), context)
    if not stream:
        return done
    ended = ReplayedAnswer(done.id, await asyncio.to_thread(lambda: done.model_dump_json().encode()))
    return streaming.EventStream(_events(ended, wire.AnswerOptions(), context), headers_of(ended))


@router.post("/v1/search/{search_id}/cancel", response_model=wire.SearchReply)
@needs("search", owned="search_id")
async def cancel(search_id: Id, context: ContextDep, caller: CallerDep) -> wire.SearchReply:
    """End a search now; its best answer so far. One that has ended already is answered as it ended."""
    return _whole(await context.searches.cancel(search_id, caller), context)


@router.post("/v1/value", response_model=wire.ValueReply)
@needs("search")
async def value(body: wire.ValueRequest, request: Request, context: ContextDep) -> Response:
    """Judge answers, finished or not, with the value model: the expected outcome of each, in [0, 1]."""
    standing = context.searches.admission.standing
    standing.require()
    judged = await unless_gone(
        request.receive,
        judge_continuations(
            context.engines,
            context.settings.limits,
            context.names.served_name(body.model),
            body.prompt,
            body.continuations,
        ),
    )
    standing.require()
    reply = wire.ValueReply(
        model=context.serving.name,
        release=next(iter(judged.scores[0].values())).release,
        values=judged.values,
        scores=[{name: score.value for name, score in one.items() if name} for one in judged.scores],
        usage=wire.ValueUsage(
            prompt_tokens=judged.prompt_tokens,
            scored_sequences=sum(map(len, judged.scores)),
            total_tokens=judged.tokens,
        ),
    )
    return JSONResponse(reply.model_dump())


def idempotency(
    key: str | None, about: str, body: BaseModel, render: Callable[[Tree], bytes] | None = None
) -> IdempotencyKey | None:
    """Bind a key to what is asked for, however its JSON was written.

    about: what is asked for beside the body, such as the route. render: writes the answer that is kept under the key;
    `None` if the answer is read from the log again.
    """
    if key is None:
        return None
    asked = about + body.model_dump_json(exclude_unset=True)
    return IdempotencyKey(key, hashlib.sha256(asked.encode()).hexdigest(), render)


def rendered(tree: Tree, body: wire.AnswerOptions, context: Context) -> bytes:
    """Write the answer of an ended search, with its tree if the request wants it."""
    reply = convert.search_reply(tree, context.serving, body.n)
    if body.include_tree:
        return large_answers.with_tree(
            reply.model_dump(exclude={"tree_document"}), "tree_document", tree_json(tree)
        )
    return reply.model_dump_json(exclude={"tree_document"}).encode()


def _whole(tree: Tree, context: Context) -> wire.SearchReply:
    return convert.search_reply(tree, context.serving, wire.MOST_ANSWERS)


def headers_of(search: RunningSearch | ReplayedAnswer) -> dict[str, str]:
    """Name the search and its tree, for clients that show only OpenAI's fields of the body."""
    number = search.id if isinstance(search, RunningSearch) else search.search_id
    return {"x-ramify-search-id": number, "x-ramify-tree": tree_id(number) or ""}


async def _events(
    search: RunningSearch | ReplayedAnswer, body: wire.AnswerOptions, context: Context
) -> AsyncIterator[bytes]:
    if isinstance(search, ReplayedAnswer):
        done = await asyncio.to_thread(wire.SearchReply.model_validate_json, search.body)
        yield streaming.event("search.started", convert.replayed_event(done))
        yield streaming.event("search.completed", search.body)
        return
    try:
        async for chunk in _followed(search, body, context):
            yield chunk
    finally:
        search.stop("cancelled", "disconnect")  # without effect on one that has ended


async def _followed(
    search: RunningSearch, body: wire.AnswerOptions, context: Context
) -> AsyncIterator[bytes]:
    """Yield the events of a search until it ends, whoever began it."""
    yield streaming.event("search.started", convert.started_event(search.tree, context.serving))
    nodes = body.stream_options is not None and body.stream_options.nodes
    async for chunk in _progress(search, context, news_of(search, nodes)):
        yield chunk
    tree = await search.answered()
    yield streaming.event("search.completed", await asyncio.to_thread(rendered, tree, body, context))


def news_of(running: RunningSearch, nodes: bool) -> Callable[[], wire.Progressed | None]:
    """Return what tells one listener how far a search is; `None` if nothing has changed since it was told of last.
    nodes: tell of its nodes too."""
    delta, told = TreeDelta(running.tree) if nodes else None, -1

    def news() -> wire.Progressed | None:
        nonlocal told
        progress, changed = running.progress(), delta.news() if delta else None
        if progress.tokens == told and not changed:
            return None
        told = progress.tokens
        return convert.progress_event(running.id, progress, changed)

    return news


async def _progress(
    running: RunningSearch, context: Context, tell: Callable[[], wire.Progressed | None]
) -> AsyncIterator[bytes]:
    """Yield progress no oftener than the setting says, and pings while there is none."""
    settings, loop = context.settings.stream, asyncio.get_running_loop()
    assert running.life is not None
    sent = loop.time()
    while not running.life.done():
        await asyncio.wait((running.life,), timeout=min(settings.progress_seconds, settings.ping_seconds))
        if (news := tell()) is not None:
            sent = loop.time()
            yield streaming.event("search.progress", news)
        elif loop.time() - sent >= settings.ping_seconds:
            sent = loop.time()
            yield streaming.PING
