"""The policy's tokenizer, by vLLM's names: POST /tokenize, POST /detokenize, GET /tokenizer_info."""

from __future__ import annotations

from fastapi import APIRouter

from ramify.api import wire_responses as wire
from ramify.api.context import ContextDep
from ramify.api.convert_openai import chat_messages
from ramify.api.scopes import ScopedRoute, needs
from ramify.service.errors import BadRequest

router = APIRouter(route_class=ScopedRoute, tags=["openai"])


@router.post("/tokenize", response_model=wire.TokenizeReply)
@needs("search")
async def tokenize(body: wire.TokenizeRequest, context: ContextDep) -> wire.TokenizeReply:
    """Token ids of a text, or of a conversation through the chat template."""
    context.names.served(body.model)
    fields = body.model_dump(exclude_unset=True, exclude_none=True, exclude={"model", "messages"})
    length = len(body.prompt or "")
    if body.messages is not None:
        fields["messages"] = list(chat_messages(body.messages))
        length = sum(len(message.get("content", "")) for message in fields["messages"])
    if fields.get("continue_final_message"):
        fields["add_generation_prompt"] = False
    where = "prompt" if body.messages is None else "messages"
    if length > context.settings.limits.prompt_chars:
        most = context.settings.limits.prompt_chars
        raise BadRequest(f"has {length} characters; at most {most} are taken", param=where)
    return wire.TokenizeReply(**await context.completions.tokenize(fields))


@router.post("/detokenize", response_model=wire.DetokenizeReply)
@needs("search")
async def detokenize(body: wire.DetokenizeRequest, context: ContextDep) -> wire.DetokenizeReply:
    """The text of token ids."""
    context.names.served(body.model)
    last = context.serving.vocabulary - 1
    if any(token > last for token in body.tokens):
        raise BadRequest(f"holds a token id outside 0 to {last}", param="tokens")
    most = context.settings.limits.prompt_chars
    if len(body.tokens) > most:
        raise BadRequest(f"has {len(body.tokens)} token ids; at most {most} are taken", param="tokens")
    return wire.DetokenizeReply(**await context.completions.detokenize({"tokens": body.tokens}))


@router.get("/tokenizer_info", response_model=wire.TokenizerInfo)
@needs("search")
async def tokenizer_info(context: ContextDep) -> wire.TokenizerInfo:
    """The tokenizer's configuration: its special tokens, its chat template."""
    return wire.TokenizerInfo(**await context.completions.tokenizer_info())
