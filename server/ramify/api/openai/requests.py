"""Requests to POST /v1/completions and /v1/chat/completions: OpenAI's fields, a few of vLLM's, and `search`.

The fields that are honoured stand here with their types; those that are only taken if they ask for nothing come from
the table in `fields`. An unknown field is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    Field,
    PlainValidator,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    create_model,
    model_validator,
)

from ramify.api import wire_search
from ramify.api.openai.fields import FIELDS, MESSAGES, Route, Row, asks, unhonoured
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
from ramify.api.wire_search import MOST_ANSWERS
from ramify.service.errors import BadRequest

ToolName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Described = Annotated[str, Field(max_length=100_000)]
Schema = dict[str, Any]
Constraint = Annotated[str, Field(min_length=1, max_length=20_000)]
"""A regular expression, a grammar or a schema as text. xgrammar compiles counted repetitions without unrolling them."""


class Function(Request):
    name: ToolName
    description: Described | None = None
    parameters: Schema | None = Field(default=None, description="JSON schema of the arguments.")
    strict: bool | None = None


class Tool(Request):
    type: Literal["function"]
    function: Function


Tools = Annotated[list[Tool], Field(max_length=128)]


class NamedFunction(Request):
    name: ToolName


class NamedTool(Request):
    """The one function to call."""

    type: Literal["function"]
    function: NamedFunction


ToolChoice = Literal["none", "auto", "required"] | NamedTool


class CalledFunction(Request):
    name: ToolName
    arguments: Annotated[str, Field(max_length=1_000_000)] = Field(description="JSON, as the model wrote it.")


class ToolCall(Request):
    """A call that the model made earlier in the conversation."""

    id: Annotated[str, Field(max_length=200)]
    type: Literal["function"] = "function"
    function: CalledFunction


ToolCalls = Annotated[list[ToolCall], Field(max_length=128)]


class JsonSchema(Request):
    name: ToolName
    description: Described | None = None
    strict: bool | None = None
    json_schema: Schema | None = Field(default=None, alias="schema")


class ResponseFormat(Request):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = Field(default=None, description="With type `json_schema`.")

    @model_validator(mode="after")
    def schema_of_its_type(self) -> ResponseFormat:
        if (self.json_schema is not None) != (self.type == "json_schema"):
            raise ValueError("json_schema goes with type 'json_schema', and that type with it")
        return self


class StructuredOutputs(Request):
    """vLLM's constraints; one of them."""

    json_: Schema | Constraint | None = Field(default=None, alias="json", description="A JSON schema.")
    json_object: bool | None = None
    regex: Constraint | None = None
    choice: (
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=1000)]], Field(min_length=1, max_length=1000)
        ]
        | None
    ) = None
    grammar: Constraint | None = Field(default=None, description="EBNF.")
    structural_tag: Constraint | None = None
    disable_any_whitespace: bool | None = None
    disable_additional_properties: bool | None = None
    whitespace_pattern: Constraint | None = None

    @model_validator(mode="after")
    def one_constraint(self) -> StructuredOutputs:
        kinds = (self.json_, self.json_object, self.regex, self.choice, self.grammar, self.structural_tag)
        if sum(kind is not None for kind in kinds) != 1:
            raise ValueError("give one of json, json_object, regex, choice, grammar and structural_tag")
        return self


MOST_PROMPTS = 1024
"""Prompts of one request."""


def refused(reason: str) -> WrapValidator:
    """Make the check of a field that is known and not served: values of other types are refused with `reason`."""

    def check(value: Any, inner: ValidatorFunctionWrapHandler) -> Any:
        try:
            return inner(value)
        except ValidationError:
            raise ValueError(reason) from None

    return WrapValidator(check)


def neutral(row: Row) -> Any:
    """Make the type of a field that nobody honours: only null and the neutral values of its row are taken."""

    def check(value: Any) -> Any:
        if asks(row, value):
            raise ValueError(row.reason)
        return value

    return Annotated[Any, PlainValidator(check), WithJsonSchema({"enum": [*row.neutral, None]})]


def neutral_fields(name: str, route: Route, fields: Mapping[str, Row]) -> type[Request]:
    """Make a model of the fields that a route takes only if they ask for nothing."""
    taken: dict[str, Any] = {
        field: (neutral(row), Field(default=None, description=f"Not served: {row.reason}."))
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
    """Turns search on: the same fields as `search` of POST /v1/search, and three that stand beside it there."""

    task: wire_search.Task | None = None
    defaults: bool | None = Field(
        default=None,
        description="Search with the search defaults of the release if nothing is said; absent: yes.",
    )
    train: bool | None = Field(
        default=None, description="Let the trainer learn from this search; absent: yes."
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
    """The fields that both routes share."""

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
    type: Annotated[Literal["text"], refused("only parts of type 'text' are read here")]
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


# -- fields that depend on each other and on `search` ----------------------------------------------------------


def check(body: CompletionRequest | ChatRequest) -> None:
    """Raise `BadRequest`, naming the field, for a request whose fields do not go together."""
    if body.stream_options is not None and not body.stream:
        raise BadRequest("requires stream", param="stream_options")
    if isinstance(body, ChatRequest):
        _check_chat(body)
    else:
        _check_completion(body)
    if body.search is not None:
        _check_search(body)


def without_effect(body: CompletionRequest | ChatRequest) -> list[str]:
    """List the fields that ask for something and have no effect on a search, for its reply to name."""
    return [
        name for name, row in FIELDS.items() if row.search == "told" and asks(row, getattr(body, name, None))
    ]


def _check_completion(body: CompletionRequest) -> None:
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise BadRequest(
            'must equal n; the best of more answers is {"search": {"algorithm": "best_of_n"}}',
            param="best_of",
        )


def _check_chat(body: ChatRequest) -> None:
    if body.top_logprobs and not body.logprobs:
        raise BadRequest("requires logprobs", param="top_logprobs")
    if body.max_tokens is not None and body.max_completion_tokens not in (None, body.max_tokens):
        raise BadRequest("is max_completion_tokens by its older name: give one of them", param="max_tokens")
    if body.continue_final_message and body.add_generation_prompt:
        raise BadRequest(
            "would begin another turn: continue_final_message goes on with the last one",
            param="add_generation_prompt",
        )


def _check_neutral(model: BaseModel, fields: Mapping[str, Row], prefix: str = "") -> None:
    """Raise `BadRequest` for a field that only a request without `search` may use."""
    for name, row in fields.items():
        value = getattr(model, name, None)
        given = value.model_dump(exclude_none=True, by_alias=True) if isinstance(value, BaseModel) else value
        if row.search == "neutral" and asks(row, given):
            raise BadRequest("has no effect on a search: leave it out", param=prefix + name)


def _check_search(body: CompletionRequest | ChatRequest) -> None:
    _check_neutral(body, FIELDS)
    for i, message in enumerate(body.messages if isinstance(body, ChatRequest) else ()):
        _check_neutral(message, MESSAGES, f"messages.{i}.")
    if (body.n or 1) > MOST_ANSWERS:
        raise BadRequest(f"too large with search: {body.n} > {MOST_ANSWERS}", param="n")
    if isinstance(body, ChatRequest):
        return
    if body.logprobs:
        raise BadRequest("must be 0 with search: a tree holds drawn tokens only", param="logprobs")
    if body.max_tokens == 0:
        raise BadRequest("must be at least 1 with search", param="max_tokens")
    if isinstance(body.prompt, list) and not isinstance(body.prompt[0], int) and len(body.prompt) > 1:
        raise BadRequest(f"holds {len(body.prompt)} prompts; a search takes one", param="prompt")
