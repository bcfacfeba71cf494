"""The policy's tokenizer, by vLLM's names: POST /tokenize, POST /detokenize, GET /tokenizer_info."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import ConfigDict, Field, model_validator

from ramify.api.context import ContextDep
from ramify.api.openai.convert import chat_messages
from ramify.api.openai.requests import ChatMessage, TokenId, Tools
from ramify.api.scopes import ScopedRoute, needs
from ramify.api.wire_common import ChatTemplate, ModelName, Reply, Request
from ramify.service.errors import BadRequest, require_token_ids


class TokenizeRequest(Request):
    """Text, or a conversation through the chat template."""

    model: ModelName | None = None
    prompt: Annotated[str, Field(max_length=10_000_000)] | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=1000)] | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: ChatTemplate | None = None
    tools: Tools | None = None

    @model_validator(mode="after")
    def one_prompt(self) -> TokenizeRequest:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        of_a_chat = ("add_generation_prompt", "continue_final_message", "chat_template_kwargs", "tools")
        if self.messages is None and any(getattr(self, name) is not None for name in of_a_chat):
            raise ValueError(f"{', '.join(of_a_chat)} require messages")
        return self


class TokenizeReply(Reply):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = Field(description="With `return_token_strs`.")


class DetokenizeRequest(Request):
    model: ModelName | None = None
    tokens: Annotated[list[TokenId], Field(max_length=200_000)]


class DetokenizeReply(Reply):
    prompt: str


class TokenizerInfo(Reply):
    """The tokenizer's own configuration."""

    model_config = ConfigDict(extra="allow", frozen=True)

    tokenizer_class: str


router = APIRouter(route_class=ScopedRoute, tags=["openai"])


@router.post("/tokenize", response_model=TokenizeReply)
@needs("search")
async def tokenize(body: TokenizeRequest, context: ContextDep) -> TokenizeReply:
    """Return the token ids of a text, or of a conversation through the chat template."""
    context.names.served_name(body.model)
    fields = body.model_dump(exclude_unset=True, exclude_none=True, exclude={"model", "messages"})
    length = len(body.prompt or "")
    if body.messages is not None:
        fields["messages"] = list(chat_messages(body.messages))
        length = sum(len(message.get("content", "")) for message in fields["messages"])
    if fields.get("continue_final_message"):
        fields["add_generation_prompt"] = False
    most = context.settings.limits.prompt_chars
    if length > most:
        field = "prompt" if body.messages is None else "messages"
        raise BadRequest(f"too long: {length} > {most} characters", param=field)
    return TokenizeReply(**await context.completions.tokenize(fields))


@router.post("/detokenize", response_model=DetokenizeReply)
@needs("search")
async def detokenize(body: DetokenizeRequest, context: ContextDep) -> DetokenizeReply:
    """Return the text of token ids."""
    context.names.served_name(body.model)
    require_token_ids(body.tokens, context.serving.vocabulary, "tokens")
    most = context.settings.limits.prompt_chars
    if len(body.tokens) > most:
        raise BadRequest(f"too long: {len(body.tokens)} > {most} token ids", param="tokens")
    return DetokenizeReply(**await context.completions.detokenize({"tokens": body.tokens}))


@router.get("/tokenizer_info", response_model=TokenizerInfo)
@needs("search")
async def tokenizer_info(context: ContextDep) -> TokenizerInfo:
    """Return the tokenizer's configuration: its special tokens, its chat template."""
    return TokenizerInfo(**await context.completions.tokenizer_info())
