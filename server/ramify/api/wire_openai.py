"""What POST /v1/completions and /v1/chat/completions take: OpenAI's fields, a few of vLLM's, and `search`.

The fields that are honoured stand here with their types; those that are only taken if they ask for nothing come from
the table in `openai_fields`. An unknown field is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, GetCoreSchemaHandler, ValidationError, create_model, model_validator
from pydantic_core import core_schema

from ramify.api import wire_search
from ramify.api.openai_fields import FIELDS, MESSAGES, Route, Row, asks, unhonoured
from ramify.api.wire_common import (
    PLAIN,
    ChatTemplate,
    ModelName,
    Name,
    Request,
    StopString,
    StopStrings,
    TopK,
)
from ramify.api.wire_openai_tools import ResponseFormat, StructuredOutputs, ToolCalls, ToolChoice, Tools

MOST_PROMPTS = 1024
"""Prompts of one request."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Marks a field that is known and not served: any value but those of its type is refused with `reason`."""

    reason: str

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        def check(value: Any, inner: core_schema.ValidatorFunctionWrapHandler) -> Any:
            try:
                return inner(value)
            except ValidationError:
                raise ValueError(self.reason) from None

        return core_schema.no_info_wrap_validator_function(check, handler(source))


@dataclass(frozen=True, slots=True, eq=False)
class Neutral:
    """Marks a field that nobody honours: only null and the neutral values of its row are taken."""

    row: Row

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        def check(value: Any) -> Any:
            if asks(self.row, value):
                raise ValueError(self.row.reason)
            return value

        return core_schema.no_info_plain_validator_function(check)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return {"enum": [*self.row.neutral, None]}


def neutral_fields(name: str, route: Route, fields: Mapping[str, Row]) -> type[Request]:
    """A model of the fields that a route takes only if they ask for nothing."""
    taken: dict[str, Any] = {
        field: (Annotated[Any, Neutral(row)], Field(default=None, description=f"Not served: {row.reason}."))
        for field, row in unhonoured(route, fields)
    }
    return create_model(name, __base__=Request, __module__=__name__, **taken)


Int64 = Annotated[int, Field(ge=-(1 << 63), le=(1 << 63) - 1)]
TokenId = Annotated[int, Field(ge=0, lt=1 << 31)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Text = Annotated[str, Field(min_length=1, max_length=10_000_000)]
Tokens = Annotated[list[TokenId], Field(min_length=1, max_length=200_000)]
Label = Annotated[str, Field(max_length=512, pattern=PLAIN)]
Labels = Annotated[dict[Annotated[str, Field(max_length=64, pattern=PLAIN)], Label], Field(max_length=16)]
Stops = StopString | StopStrings
Biases = Annotated[
    dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], Annotated[float, Field(ge=-100, le=100)]],
    Field(max_length=1024),
]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
CompletionNeutral = neutral_fields("CompletionNeutral", "completions", FIELDS)
ChatNeutral = neutral_fields("ChatNeutral", "chat", FIELDS)
MessageNeutral = neutral_fields("MessageNeutral", "chat", MESSAGES)


class Search(wire_search.Search):
    """Turns search on: the same fields as `search` of POST /v1/search, and two that stand beside it there."""

    task: wire_search.Task | None = None
    train: bool | None = Field(
        default=None, description="Whether the trainer may learn from this search; absent: yes."
    )


class StreamOptions(Request):
    include_usage: bool | None = Field(
        default=None,
        description="One more chunk before `[DONE]` with the usage; `usage` is null in all others.",
    )
    continuous_usage_stats: bool | None = Field(
        default=None, description="With `include_usage`: every chunk has the usage so far."
    )
    include_obfuscation: bool | None = Field(
        default=None, description="Taken; there is no obfuscation to leave out."
    )


class GenerationRequest(Request):
    """What both routes share."""

    model: ModelName | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = Field(
        default=None,
        description="Choices. With `search`: distinct final answers, best first, at most 64; fewer if there are "
        "fewer.",
    )
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: Biases | None = Field(default=None, description="Token id to bias.")
    seed: Int64 | None = None
    stop: Stops | None = Field(
        default=None,
        description="Strings that end an answer and are not part of it. With `search`, `search.action.stop` ends a "
        "step.",
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Label | None = Field(default=None, description="Taken and without effect.")
    metadata: Labels | None = Field(default=None, description="Taken and without effect; nothing is stored.")
    safety_identifier: Label | None = Field(default=None, description="Taken and without effect.")
    prompt_cache_key: Label | None = Field(default=None, description="Taken; prefixes are cached without it.")
    search: Search | None = Field(
        default=None, description="Search a tree for the answer; absent: the policy alone."
    )
    response_format: ResponseFormat | None = None
    # vLLM's own
    structured_outputs: StructuredOutputs | None = None
    top_k: TopK | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    min_tokens: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=64)] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None


class CompletionRequest(GenerationRequest, CompletionNeutral):  # type: ignore[misc, valid-type]
    """POST /v1/completions."""

    prompt: (
        Text
        | Annotated[list[Text], Field(min_length=1, max_length=MOST_PROMPTS)]
        | Tokens
        | Annotated[list[Tokens], Field(min_length=1, max_length=MOST_PROMPTS)]
    ) = Field(description="Text, token ids, or a list of either; with `search` one text or one list of ids.")
    max_tokens: Annotated[int, Field(ge=0, le=1_000_000)] | None = Field(
        default=None,
        description="Cap on one answer; absent: 16, or with `search` the model's default. 0 with `echo` only.",
    )
    echo: bool | None = Field(default=None, description="The prompt is part of the answer.")
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = Field(
        default=None,
        description="Log-probabilities of the tokens of the answer and of as many likeliest others; with `search` 0, "
        "since only drawn tokens are in the tree.",
    )
    best_of: Annotated[int, Field(ge=1, le=20)] | None = Field(
        default=None, description='Must equal `n`: ask for `"search": {"algorithm": "best_of_n"}`.'
    )


class TextPart(Request):
    type: Annotated[Literal["text"], Refused("only parts of type 'text' are read here")]
    text: Annotated[str, Field(max_length=1_000_000)]


class ChatMessage(MessageNeutral):  # type: ignore[misc, valid-type]
    role: Literal["developer", "system", "user", "assistant", "tool"]
    content: (
        Annotated[str, Field(max_length=1_000_000)]
        | Annotated[list[TextPart], Field(min_length=1, max_length=1000)]
        | None
    ) = Field(
        default=None,
        description="Text, or parts of text, which are joined by line breaks; null beside `tool_calls` only.",
    )
    tool_calls: ToolCalls | None = None
    tool_call_id: Annotated[str, Field(max_length=200)] | None = None
    reasoning: Annotated[str, Field(max_length=1_000_000)] | None = None
    reasoning_content: Annotated[str, Field(max_length=1_000_000)] | None = Field(
        default=None, description="Older name of `reasoning`."
    )
    name: Name | None = Field(default=None, description="Given to the chat template.")
    id: Label | None = Field(default=None, description="Taken and without effect.")

    @model_validator(mode="after")
    def says_something(self) -> ChatMessage:
        if self.content is None and not self.tool_calls:
            raise ValueError("content may be left out only beside tool_calls")
        return self


class ChatRequest(GenerationRequest, ChatNeutral):  # type: ignore[misc, valid-type]
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=1000)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None,
        description="Cap on one answer; absent: what the model has room for, or with `search` the model's default.",
    )
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None,
        description="The older name of `max_completion_tokens`.",
        json_schema_extra={"deprecated": True},
    )
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = Field(
        default=None, description="With `logprobs`; with `search` 0, since only drawn tokens are in the tree."
    )
    chat_template_kwargs: ChatTemplate | None = None
    add_generation_prompt: bool | None = Field(
        default=None, description="Begin the model's turn; absent: yes, unless `continue_final_message`."
    )
    continue_final_message: bool | None = Field(
        default=None, description="Write on at the end of the last message."
    )
    reasoning_effort: Effort | None = Field(
        default=None,
        description="Given to the chat template, with `enable_thinking` (`false` for `none`) unless "
        "`chat_template_kwargs` has it.",
    )
    include_reasoning: bool | None = Field(
        default=None, description="Send the model's reasoning with its answer; absent: yes."
    )
    tools: Tools | None = Field(
        default=None, description="Functions that the model may ask the client to call."
    )
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
