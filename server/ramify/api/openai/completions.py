"""OpenAI's routes: POST /v1/completions and /v1/chat/completions, with or without a search.

OpenAI's clients take every `data:` frame for a chunk and know no event names, so a search's progress shows in comments
alone, and its answer comes in proper chunks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from ramify.api import streaming
from ramify.api.context import CallerDep, Context, ContextDep
from ramify.api.documentation import CHAT_EXAMPLES, COMPLETION_EXAMPLES, STREAM
from ramify.api.middleware import request_id
from ramify.api.names import SearchHeader
from ramify.api.openai import convert, replies
from ramify.api.openai import requests as wire
from ramify.api.routes.search import answered_tree, headers_of, idempotency
from ramify.api.scopes import ScopedRoute, needs
from ramify.api.streaming import unless_gone
from ramify.api.wire_common import ErrorBody
from ramify.search.tree import Tree
from ramify.service.completions import CompletionStream
from ramify.service.errors import BadRequest, ServiceError
from ramify.service.idempotency import ReplayedAnswer
from ramify.service.keys import Caller
from ramify.service.searches import RunningSearch

router = APIRouter(route_class=ScopedRoute, tags=["openai"])
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="With `search`: one search for one key.",
    ),
]
NO_RETRY = {"x-should-retry": "false"}


@router.post(
    "/v1/completions", response_model=replies.Completion, responses=STREAM, openapi_extra=COMPLETION_EXAMPLES
)
@needs("search")
async def completions(
    body: wire.CompletionRequest,
    request: Request,
    context: ContextDep,
    caller: CallerDep,
    idempotency_key: Key = None,
    search: SearchHeader = None,
) -> Response:
    """OpenAI's completions: the policy alone, or with `search` the best answers of a tree.

    With `stream`, chunks and `[DONE]`. If the client leaves, the work is ended.
    """
    return await _answer(context.names.resolve(body, search), request, context, caller, idempotency_key)


@router.post(
    "/v1/chat/completions",
    response_model=replies.ChatCompletion,
    responses=STREAM,
    openapi_extra=CHAT_EXAMPLES,
)
@needs("search")
async def chat(
    body: wire.ChatRequest,
    request: Request,
    context: ContextDep,
    caller: CallerDep,
    idempotency_key: Key = None,
    search: SearchHeader = None,
) -> Response:
    """The same for a conversation, which goes through the model's chat template."""
    return await _answer(context.names.resolve(body, search), request, context, caller, idempotency_key)


async def _answer(
    body: convert.Body, request: Request, context: Context, caller: Caller, key: str | None
) -> Response:
    wire.check(body)
    if body.search is not None:
        return await _searched(body, request, context, caller, key)
    if key is not None:
        raise not_kept()
    return await _plain(body, request, context, caller)


def not_kept() -> BadRequest:
    """Build the refusal of a key under which nothing would be kept."""
    return BadRequest("requires search: only searches are replayed", param="Idempotency-Key")


def _broken_off(error: ErrorBody) -> bytes:
    """Write the end of a stream that an error has broken off, as OpenAI's clients read it."""
    return streaming.event(None, error) + replies.DONE


# -- the policy alone --------------------------------------------------------------------------------------------


async def _plain(body: convert.Body, request: Request, context: Context, caller: Caller) -> Response:
    spec = convert.completion_spec(body, request_id(request))
    if body.stream:
        stream = await unless_gone(request.receive, context.completions.stream(spec, caller))
        return streaming.EventStream(_plain_chunks(stream, _wants_usage(body), context), on_error=_broken_off)
    answer = await unless_gone(request.receive, context.completions.complete(spec, caller))
    return _json(replies.json_of(replies.plain(answer, context.serving)))


async def _plain_chunks(
    stream: CompletionStream, wanted: replies.UsageWanted, context: Context
) -> AsyncIterator[bytes]:
    try:
        async for chunk in stream:
            if sent := replies.plain_chunk(chunk, context.serving, wanted):
                yield sent
    finally:
        await stream.close()
    yield replies.DONE


# -- a search ----------------------------------------------------------------------------------------------------


async def _searched(
    body: convert.Body, request: Request, context: Context, caller: Caller, key: str | None
) -> Response:
    kept = idempotency(
        key, type(body).__name__, body, lambda tree: replies.json_of(_reply(tree, body, context))
    )
    try:
        search = await unless_gone(
            request.receive, context.searches.start(convert.search_spec(body), caller, kept)
        )
    except BadRequest as error:
        raise convert.renamed(error, body) from error
    headers = NO_RETRY | headers_of(search)
    if body.stream:
        return streaming.EventStream(_search_chunks(search, body, context), headers, _broken_off)
    if isinstance(search, ReplayedAnswer):
        return _json(search.body, headers)
    tree = await answered_tree(search, request)
    return _json(replies.json_of(_reply(tree, body, context)), headers)


async def _search_chunks(
    search: RunningSearch | ReplayedAnswer, body: convert.Body, context: Context
) -> AsyncIterator[bytes]:
    try:
        if isinstance(search, ReplayedAnswer):
            reply = _parsed(search.body, body)
        else:
            async for ping in _pings(search, context.settings.stream.ping_seconds):
                yield ping
            reply = _reply(await search.answered(), body, context)
        for chunk in replies.chunks(reply, _wants_usage(body)):
            yield chunk
    finally:
        if isinstance(search, RunningSearch):
            search.stop("cancelled", "disconnect")  # without effect on one that has ended
    yield replies.DONE


async def _pings(running: RunningSearch, seconds: float) -> AsyncIterator[bytes]:
    """Yield a comment every so often until the search has ended."""
    assert running.life is not None
    while not (await asyncio.wait((running.life,), timeout=seconds))[0]:
        yield streaming.comment(f"{running.spent} tokens")


def _reply(tree: Tree, body: convert.Body, context: Context) -> replies.AnyCompletion:
    """Make the reply of an ended search. Raise `ServiceError` if it has no answer, unless safety scorers left none:
    clients read the first choice."""
    if tree.answer is None and tree.stop_reason != "pruned":
        raise ServiceError("no_answer", f"the search of {tree.id} was ended before it had any answer")
    return replies.searched(tree, body, context.serving, context.engines.tokenizer)


def _parsed(kept: bytes, body: convert.Body) -> replies.AnyCompletion:
    kind = replies.ChatCompletion if isinstance(body, wire.ChatRequest) else replies.Completion
    return kind.model_validate_json(kept)


def _wants_usage(body: convert.Body) -> replies.UsageWanted:
    options = body.stream_options
    if options is None or not options.include_usage:
        return "never"
    return "always" if options.continuous_usage_stats else "end"


def _json(body: bytes, headers: dict[str, str] | None = None) -> Response:
    return Response(body, media_type="application/json", headers=headers)
