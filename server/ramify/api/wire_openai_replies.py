"""What POST /v1/completions and /v1/chat/completions send, in OpenAI's shapes, with `ramify` beside it for a search."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ramify.api.wire_common import Reply
from ramify.api.wire_search import TreeLink
from ramify.search import records

FinishReason = Literal["stop", "length", "tool_calls"]


def absent(value: object) -> bool:
    """Whether a field is left out of the answer."""
    return value is None


class CompletionDetails(Reply):
    reasoning_tokens: int | None = None


class Usage(Reply):
    prompt_tokens: int
    completion_tokens: int = Field(description="Every generated token; of a search, those of its whole tree.")
    total_tokens: int
    completion_tokens_details: CompletionDetails | None = Field(
        default=None, exclude_if=absent, description="With a reasoning parser."
    )


class Searched(Reply):
    """The search behind the choices."""

    tree: TreeLink
    search_id: str
    status: records.Status
    stop_reason: records.StopReason | None
    release: str
    temperature: float = Field(
        description="Of its draws; the default if 0 was sent, at which a search would find nothing new."
    )
    truncated_answers: int = Field(
        description="Draws cut by `max_tokens` or `search.max_depth` before the answer's end; worth 0."
    )
    without_effect: list[str] = Field(
        description="Fields of the request that a search does not heed, such as `ignore_eos`."
    )


class CompletionReply(Reply):
    """What both answers share."""

    id: str
    created: int
    model: str
    system_fingerprint: str = Field(description="Id of the release that wrote it.")
    usage: Usage
    ramify: Searched | None = Field(default=None, description="With `search` only.")


class CompletionLogprobs(Reply):
    tokens: list[str]
    token_logprobs: list[float | None] = Field(description="Null for the first token of an echoed prompt.")
    top_logprobs: list[dict[str, float] | None] | None = Field(
        description="Null where `search` was asked for."
    )
    text_offset: list[int]


class CompletionChoice(Reply):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason


class Completion(CompletionReply):
    object: Literal["text_completion"] = "text_completion"
    choices: list[CompletionChoice]


class TokenLogprob(Reply):
    token: str
    logprob: float
    bytes: list[int] | None


class ContentLogprob(TokenLogprob):
    top_logprobs: list[TokenLogprob]


class ChatLogprobs(Reply):
    content: list[ContentLogprob]
    refusal: None = None


class CalledFunction(Reply):
    name: str
    arguments: str = Field(description="JSON, as the model wrote it.")


class ToolCall(Reply):
    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatAnswer(Reply):
    role: str = "assistant"
    content: str | None
    refusal: None = None
    reasoning: str | None = Field(
        default=None, exclude_if=absent, description="With a reasoning parser: what the model thought first."
    )
    tool_calls: list[ToolCall] | None = Field(
        default=None, exclude_if=absent, description="With a tool parser: what the client is asked to call."
    )


class ChatChoice(Reply):
    index: int
    message: ChatAnswer
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(CompletionReply):
    object: Literal["chat.completion"] = "chat.completion"
    choices: list[ChatChoice]
