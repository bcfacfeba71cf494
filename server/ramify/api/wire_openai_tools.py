"""Tools that a model may call, and constraints on what it writes; vLLM honours both, without `search`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ramify.api.wire_common import Request

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
