"""POST /v1/responses by vLLM's own serving, and the cancelling of what the policy alone writes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Annotated, Any, Literal

import fastapi
from fastapi import APIRouter, Path, Response
from pydantic import ConfigDict, Field

from ramify.api import errors, streaming
from ramify.api.context import CallerDep, Context, ContextDep
from ramify.api.documentation import STREAM
from ramify.api.middleware import request_id
from ramify.api.names import SearchHeader
from ramify.api.openai import convert
from ramify.api.openai.completions import Key, not_kept
from ramify.api.openai.fields import RESPONSES
from ramify.api.openai.requests import (
    Int64,
    Label,
    Labels,
    Penalty,
    Stops,
    StructuredOutputs,
    neutral_fields,
)
from ramify.api.scopes import ScopedRoute, needs
from ramify.api.streaming import unless_gone
from ramify.api.wire_common import ChatTemplate, ModelName, Reply, Request, TopK
from ramify.service.completion_spec import CompletionSpec
from ramify.service.completions import CompletionStream
from ramify.service.errors import BadRequest

Text = Annotated[str, Field(min_length=1, max_length=1_000_000)]
Item = Annotated[dict[str, Any], Field(max_length=32)]
ResponsesNeutral = neutral_fields("ResponsesNeutral", "responses", RESPONSES)


class Reasoning(Request):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = Field(
        default=None, description="Taken; reasoning is sent whole."
    )


class ResponsesRequest(ResponsesNeutral):  # type: ignore[misc, valid-type]
    """POST /v1/responses."""

    model: ModelName | None = None
    input: Text | Annotated[list[Item], Field(min_length=1, max_length=1000)] = Field(
        description="Text, or items of type message, function_call, function_call_output and reasoning; text only."
    )
    instructions: Annotated[str, Field(max_length=1_000_000)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None,
        description="Absent: the server's `limits.answer_tokens`, or what the model has room for.",
    )
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: TopK | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    seed: Int64 | None = None
    stop: Stops | None = None
    ignore_eos: bool | None = None
    stream: bool | None = None
    tools: Annotated[list[Item], Field(max_length=128)] | None = Field(
        default=None, description="Tools of type `function`."
    )
    tool_choice: Literal["none", "auto", "required"] | Item | None = None
    parallel_tool_calls: bool | None = None
    text: Item | None = Field(default=None, description="`format`: `text`, `json_object` or `json_schema`.")
    structured_outputs: StructuredOutputs | None = None
    reasoning: Reasoning | None = None
    include_reasoning: bool | None = None
    chat_template_kwargs: ChatTemplate | None = None
    include: Annotated[list[Label], Field(max_length=16)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    metadata: Labels | None = Field(default=None, description="Sent back, and without effect.")
    user: Label | None = None
    safety_identifier: Label | None = None
    prompt_cache_key: Label | None = None
    store: bool | None = Field(
        default=None, description="Taken; nothing is stored, so nothing can be fetched."
    )


class ResponsesReply(Reply):
    """vLLM's answer, whole; the fields that every answer has."""

    model_config = ConfigDict(extra="allow", frozen=True)

    id: str
    object: Literal["response"]
    created_at: int
    model: str
    status: str
    output: list[dict[str, Any]]
    usage: dict[str, Any] | None


class CancelReply(Reply):
    """Work of the policy alone that was ended."""

    id: str
    object: Literal["text_completion", "chat.completion", "response"]
    status: Literal["cancelled"] = "cancelled"
    cancelled: int = Field(description="Requests ended: several may share an `x-request-id`.")


ITEMS = ("message", "function_call", "function_call_output", "reasoning")
PARTS = ("input_text", "output_text", "reasoning_text", "summary_text", "refusal", "text")
"""Parts of a message that hold text. An image or a file would be fetched from wherever its address says."""
FORMATS = ("text", "json_object", "json_schema")
INCLUDED = ("message.output_text.logprobs", "reasoning.encrypted_content")
"""Parts of the output that clients may ask for; reasoning is never encrypted here, so there is nothing to add."""


def check(body: ResponsesRequest) -> None:
    """Raise `BadRequest`, naming the field, for items, tools and formats that are not served."""
    for field, kind, known in _kinds(body):
        if kind not in known:
            raise BadRequest(f"unknown: {str(kind)[:50]!r}; known are {', '.join(known)}", param=field)


def _kinds(body: ResponsesRequest) -> Iterator[tuple[str, Any, tuple[str, ...]]]:
    """Yield every field that names a kind, the kind, and the kinds that are served there."""
    for i, item in enumerate(body.input if isinstance(body.input, list) else ()):
        yield f"input.{i}.type", item.get("type", "message"), ITEMS
        for name in ("content", "output", "summary"):
            yield from _parts(f"input.{i}.{name}", item.get(name))
    for i, tool in enumerate(body.tools or ()):
        yield f"tools.{i}.type", tool.get("type"), ("function",)
    for name in (body.text or {}).keys() - {"format", "verbosity"}:
        yield f"text.{name}", name, ("format", "verbosity")
    form = (body.text or {}).get("format")
    if form is not None:
        yield "text.format.type", form.get("type") if isinstance(form, Mapping) else form, FORMATS
    for i, name in enumerate(body.include or ()):
        yield f"include.{i}", name, INCLUDED


def _parts(field: str, content: Any) -> Iterator[tuple[str, Any, tuple[str, ...]]]:
    for i, part in enumerate(content if isinstance(content, list) else ()):
        yield f"{field}.{i}.type", part.get("type") if isinstance(part, Mapping) else part, PARTS


router = APIRouter(route_class=ScopedRoute, tags=["openai"])
Id = Annotated[
    str,
    Path(
        max_length=128, description="The answer's id, or the `x-request-id` that the request was sent with."
    ),
]


@router.post("/v1/responses", response_model=ResponsesReply, responses=STREAM)
@needs("search")
async def create(
    body: ResponsesRequest,
    request: fastapi.Request,
    context: ContextDep,
    caller: CallerDep,
    idempotency_key: Key = None,
    search: SearchHeader = None,
) -> Response:
    """OpenAI's responses: the policy alone. Nothing is stored: the client sends the whole conversation every time.

    With `stream`, OpenAI's events. If the client leaves, the work is ended.
    """
    check(body)
    if idempotency_key is not None:
        raise not_kept()
    model = context.names.without_search(body.model, search)
    spec = response_spec(body, model, request_id(request))
    if body.stream:
        stream = await unless_gone(request.receive, context.completions.stream(spec, caller))
        return streaming.EventStream(_events(stream, context, request_id(request)))
    answer = await unless_gone(request.receive, context.completions.complete(spec, caller))
    reply = ResponsesReply(**_named(answer, context))
    return Response(reply.model_dump_json().encode(), media_type="application/json")


@router.post("/v1/completions/{id}/cancel", response_model=CancelReply)
@needs("search", owned="id")
async def cancel_completion(id: Id, context: ContextDep, caller: CallerDep) -> CancelReply:  # noqa: A002
    """End a completion of the policy alone that this API key asked for; whoever waits for it gets 409 `cancelled`.

    A search is ended by POST /v1/search/{search_id}/cancel.
    """
    return CancelReply(id=id, object="text_completion", cancelled=context.completions.cancel(id, caller))


@router.post("/v1/chat/completions/{id}/cancel", response_model=CancelReply)
@needs("search", owned="id")
async def cancel_chat(id: Id, context: ContextDep, caller: CallerDep) -> CancelReply:  # noqa: A002
    """The same for a chat."""
    return CancelReply(id=id, object="chat.completion", cancelled=context.completions.cancel(id, caller))


@router.post("/v1/responses/{id}/cancel", response_model=CancelReply)
@needs("search", owned="id")
async def cancel_response(id: Id, context: ContextDep, caller: CallerDep) -> CancelReply:  # noqa: A002
    """The same for a response."""
    return CancelReply(id=id, object="response", cancelled=context.completions.cancel(id, caller))


def response_spec(body: ResponsesRequest, model: str | None, request_id: str = "") -> CompletionSpec:
    """Convert a request to POST /v1/responses."""
    fields = convert.for_vllm(body, "responses")
    return CompletionSpec(
        model,
        input=fields.pop("input"),
        max_tokens=body.max_output_tokens,
        max_tokens_field="max_output_tokens",
        fields={**fields, "store": False},
        request_id=request_id,
    )


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
    """Return a response under the served model's name; vLLM knows it by another."""
    return {**response, "model": context.serving.name}
