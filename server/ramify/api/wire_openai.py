"""What POST /v1/completions and /v1/chat/completions take: OpenAI's fields, a few of vLLM's, and `search`.

Whatever is neither honoured nor harmless is refused by its name: a parameter that is dropped in silence gives an
answer to another question than was asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, GetCoreSchemaHandler, ValidationError
from pydantic_core import core_schema

from ramify.api import wire_search
from ramify.api.wire_common import PLAIN, ModelName, Request, StopString

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


Int64 = Annotated[int, Field(ge=-(1 << 63), le=(1 << 63) - 1)]
TokenId = Annotated[int, Field(ge=0, lt=1 << 31)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Text = Annotated[str, Field(min_length=1, max_length=10_000_000)]
Tokens = Annotated[list[TokenId], Field(min_length=1, max_length=200_000)]
Label = Annotated[str, Field(max_length=512, pattern=PLAIN)]
Stops = StopString | Annotated[list[StopString], Field(max_length=4)]
Biases = Annotated[
    dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], Annotated[float, Field(ge=-100, le=100)]],
    Field(max_length=1024),
]
NO_TOOLS = Refused("tools are not served here")
NOTHING_STORED = Refused("nothing is stored under it here; searches are in the tree log")


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
    include_obfuscation: bool | None = Field(
        default=None, description="Taken; there is no obfuscation to leave out."
    )


class Generate(Request):
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
    safety_identifier: Label | None = Field(default=None, description="Taken and without effect.")
    prompt_cache_key: Label | None = Field(default=None, description="Taken; prefixes are cached without it.")
    service_tier: Annotated[
        Literal["auto", "default"] | None, Refused("there is one tier: auto or default")
    ] = None
    store: Annotated[Literal[False] | None, NOTHING_STORED] = None
    metadata: Annotated[None, NOTHING_STORED] = None
    search: Search | None = Field(
        default=None, description="Search a tree for the answer; absent: the policy alone."
    )
    # vLLM's own
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] | None = Field(
        default=None, description="0 keeps all tokens."
    )
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    min_tokens: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=64)] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None


class CompletionRequest(Generate):
    """POST /v1/completions."""

    prompt: (
        Text
        | Annotated[list[Text], Field(min_length=1, max_length=MOST_PROMPTS)]
        | Tokens
        | Annotated[list[Tokens], Field(min_length=1, max_length=MOST_PROMPTS)]
    ) = Field(description="Text, token ids, or a list of either; with `search` one text.")
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
    suffix: Annotated[None, Refused("text cannot be inserted: the model only writes on")] = None


class TextPart(Request):
    type: Annotated[Literal["text"], Refused("only parts of type 'text' are read here")]
    text: Annotated[str, Field(max_length=1_000_000)]


class ChatMessage(Request):
    role: Literal["developer", "system", "user", "assistant", "tool"]
    content: (
        Annotated[str, Field(max_length=1_000_000)]
        | Annotated[list[TextPart], Field(min_length=1, max_length=1000)]
    ) = Field(description="Text, or parts of text, which are joined by line breaks.")
    name: Annotated[None, Refused("names are not given to the chat template")] = None
    tool_calls: Annotated[None, NO_TOOLS] = None
    tool_call_id: Annotated[None, NO_TOOLS] = None
    function_call: Annotated[None, NO_TOOLS] = None
    refusal: Annotated[None, Refused("refusals are not given to the chat template")] = None
    audio: Annotated[None, Refused("only text is read here")] = None
    annotations: Annotated[None, Refused("annotations are not given to the chat template")] = None


class ResponseFormat(Request):
    type: Annotated[Literal["text"], Refused("only 'text': output is not constrained here")]


class ChatRequest(Generate):
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
    response_format: ResponseFormat | None = None
    modalities: (
        Annotated[
            list[Annotated[Literal["text"], Refused("only 'text' is written here")]],
            Field(min_length=1, max_length=1),
        ]
        | None
    ) = None
    tool_choice: Annotated[Literal["none"] | None, NO_TOOLS] = None
    tools: Annotated[None, NO_TOOLS] = None
    parallel_tool_calls: Annotated[None, NO_TOOLS] = None
    functions: Annotated[None, NO_TOOLS] = None
    function_call: Annotated[None, NO_TOOLS] = None
    web_search_options: Annotated[None, NO_TOOLS] = None
    audio: Annotated[None, Refused("only text is written here")] = None
    prediction: Annotated[None, Refused("predicted outputs are not served here")] = None
    reasoning_effort: Annotated[
        None, Refused("effort is set by search: give `search.budget` in its place")
    ] = None
    verbosity: Annotated[None, Refused("it would have no effect: ask in the prompt")] = None
    prompt_cache_retention: Annotated[None, Refused("cached prefixes are kept while there is room")] = None
