"""POST /v1/responses and the routes of the tokenizer on the wire."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from ramify.api.openai_fields import RESPONSES
from ramify.api.wire_common import ChatTemplate, ModelName, Reply, Request, TopK
from ramify.api.wire_openai import (
    ChatMessage,
    Int64,
    Label,
    Labels,
    Penalty,
    Stops,
    TokenId,
    neutral_fields,
)
from ramify.api.wire_openai_tools import StructuredOutputs, Tools

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
        default=None, description="Of type `function`."
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
            raise ValueError(f"{', '.join(of_a_chat)} mean nothing without messages")
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
