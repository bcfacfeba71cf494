"""POST /v1/responses by vLLM's own serving, and the cancelling of what the policy alone writes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from ramify.api import convert_openai as convert
from ramify.api import errors, responses_rules, streaming
from ramify.api import wire_responses as wire
from ramify.api.context import CallerDep, Context, ContextDep
from ramify.api.documentation import STREAM
from ramify.api.middleware import request_id
from ramify.api.names import SearchHeader
from ramify.api.routes.openai import Key, not_kept
from ramify.api.scopes import ScopedRoute, needs
from ramify.api.streaming import unless_gone
from ramify.service.plain import CompletionStream

router = APIRouter(route_class=ScopedRoute, tags=["openai"])
Id = Annotated[
    str,
    Path(max_length=128, description="Of the answer, or the `x-request-id` that the request was sent with."),
]


@router.post("/v1/responses", response_model=wire.ResponsesReply, responses=STREAM)
@needs("search")
async def create(
    body: wire.ResponsesRequest,
    request: Request,
    context: ContextDep,
    caller: CallerDep,
    idempotency_key: Key = None,
    search: SearchHeader = None,
) -> Response:
    """OpenAI's responses: the policy alone. Nothing is stored: the client sends the whole conversation every time.

    With `stream`, OpenAI's events. If the client leaves, the work is ended.
    """
    responses_rules.check(body)
    if idempotency_key is not None:
        raise not_kept()
    model = context.names.plainly(body.model, search)
    ask = convert.response_ask(body, model, request_id(request))
    if body.stream:
        stream = await unless_gone(request.receive, context.completions.stream(ask, caller))
        return streaming.EventStream(_events(stream, context, request_id(request)))
    answer = await unless_gone(request.receive, context.completions.complete(ask, caller))
    reply = wire.ResponsesReply(**_named(answer, context))
    return Response(reply.model_dump_json().encode(), media_type="application/json")


@router.post("/v1/completions/{id}/cancel", response_model=wire.CancelReply)
@needs("search")
async def cancel_completion(id: Id, context: ContextDep, caller: CallerDep) -> wire.CancelReply:  # noqa: A002
    """End a completion of the policy alone that this API key asked for; who waits for it gets 409 `cancelled`.

    A search is ended by POST /v1/search/{search_id}/cancel.
    """
    return wire.CancelReply(id=id, object="text_completion", cancelled=context.completions.cancel(id, caller))


@router.post("/v1/chat/completions/{id}/cancel", response_model=wire.CancelReply)
@needs("search")
async def cancel_chat(id: Id, context: ContextDep, caller: CallerDep) -> wire.CancelReply:  # noqa: A002
    """The same for a chat."""
    return wire.CancelReply(id=id, object="chat.completion", cancelled=context.completions.cancel(id, caller))


@router.post("/v1/responses/{id}/cancel", response_model=wire.CancelReply)
@needs("search")
async def cancel_response(id: Id, context: ContextDep, caller: CallerDep) -> wire.CancelReply:  # noqa: A002
    """The same for a response."""
    return wire.CancelReply(id=id, object="response", cancelled=context.completions.cancel(id, caller))


async def _events(stream: CompletionStream, context: Context, request: str) -> AsyncIterator[bytes]:
    number = 0
    try:
        async for event in stream:
            number += 1
            told = {"response": _named(event["response"], context)} if "response" in event else {}
            yield streaming.event(event["type"], {**event, **told})
    except Exception as error:
        detail = errors.stream_error(error, request).error.model_dump()
        yield streaming.event(
            "error", {"type": "error", "sequence_number": number, **detail, "error": detail}
        )
    finally:
        await stream.close()


def _named(response: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """A response under the served model's name; vLLM knows it by another."""
    return {**response, "model": context.serving.name}
