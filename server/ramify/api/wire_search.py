"""POST /v1/search on the wire. Every default is the algorithm's or the model's own, so most fields are absent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from types import NoneType
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, ConfigDict, Field, create_model, model_validator

from ramify.api.wire_common import (
    ChatTemplate,
    Count,
    ModelName,
    Name,
    Reply,
    Request,
    StopString,
    StopStrings,
    TopK,
)
from ramify.api.wire_log import AlgorithmName, DescribedAs, TreeDocument, described, model_of, renamed
from ramify.rewards.registry import gradable
from ramify.search import records
from ramify.search.algorithms import ALGORITHMS
from ramify.search.cutting import MAX_STEP_STOPS
from ramify.search.params import MOST_POLICIES, PARAMS, POLICY_NAME, bounds
from ramify.search.tree import Node

MOST_ANSWERS = 64
"""Distinct answers sent of one search."""
LONGEST_TEXT = 200
"""Characters of a node's text that are sent while its search runs."""


PolicyName = Annotated[str, Field(pattern=f"^{POLICY_NAME}$")]


def options_of(record: type, name: str, about: str, prefix: str = "") -> type[Request]:
    """Make the body that carries the parameters which a record declares.

    Each may be absent, and has the type and bounds to which the search itself holds it. prefix: how the names of the
    record's parameters begin.
    """
    said = described(record)
    made: dict[str, Any] = {}
    for field in fields(record):
        described_field = Field(default=None, description=said[field.name].replace("`None`", "`null`"))
        made[field.name] = (_option(prefix + field.name) | None, described_field)
    return create_model(name, __base__=Request, __doc__=about, __module__=__name__, **made)


def _option(name: str) -> Any:
    """The type of a parameter on the wire."""
    kind = PARAMS[name][1]
    if name == "algorithm":
        return AlgorithmName
    if name == "policies":
        return Annotated[list[PolicyName], Field(min_length=1, max_length=MOST_POLICIES)]
    if kind == tuple[str, ...]:
        return Annotated[list[StopString], Field(max_length=MAX_STEP_STOPS)]
    if kind in (records.Action, records.BudgetLimits):
        return {records.Action: Action, records.BudgetLimits: Budget}[kind]
    limits = bounds(name)
    if limits is None:
        return kind
    (number,) = [one for one in get_args(kind) or (kind,) if one is not NoneType]
    return Annotated[number, Field(ge=limits[0], le=limits[1])]


class Message(Request):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[str, Field(max_length=1_000_000)]


def _with_tasks(schema: dict[str, Any]) -> None:
    """Tell clients the tasks there are, when the document is made: other packages may have added some."""
    schema["x-ramify-tasks"] = [*gradable(), "none"]


class Task(Request):
    model_config = ConfigDict(json_schema_extra=_with_tasks)

    name: Name = Field(
        description="`countdown`, `exact`, `math`, `none`, or a task that the server was extended by."
    )
    problem: dict[str, Any] | None = Field(
        default=None,
        max_length=16,
        description="The data that the task judges by; absent, a Countdown prompt states its own.",
    )


Action = options_of(records.Action, "Action", "One edge of the tree.", "action.")
Budget = options_of(
    records.BudgetLimits, "Budget", "Limits, of which the first to be met ends the search.", "budget."
)


def _show_algorithms(schema: dict[str, Any]) -> None:
    schema["x-ramify-algorithms"] = {name: sorted(kind.parameters) for name, kind in ALGORITHMS.items()}


class Search(options_of(records.SearchParams, "SearchParams", "")):  # type: ignore[misc]
    """The search to run. A field that has no effect on the chosen algorithm is refused by name."""

    model_config = ConfigDict(json_schema_extra=_show_algorithms)


class Sampling(Request):
    """How one answer is sampled."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: TopK | None = None
    max_tokens: Count | None = Field(default=None, description="Cap on one whole answer.")
    stop: StopStrings | None = Field(
        default=None, description="Strings that end an answer; they stay in its text."
    )


class StreamOptions(Request):
    nodes: bool = Field(
        default=False,
        description="Have every `search.progress` carry the nodes that are new or have changed.",
    )


class AnswerOptions(Request):
    """How to answer, whatever is searched."""

    n: Annotated[int, Field(ge=1, le=MOST_ANSWERS)] = Field(
        default=1, description="Distinct final answers in `candidates`, best first; fewer if there are fewer."
    )
    stream: bool = Field(default=False, description="Answer with Server-Sent Events.")
    stream_options: StreamOptions | None = Field(default=None, description="Only with `stream`.")
    include_tree: bool = Field(default=False, description="Send the whole tree with the answer.")
    train: bool = Field(default=True, description="Let the trainer learn from this search.")
    deadline: Annotated[float, Field(gt=0, le=86_400)] | None = Field(
        default=None,
        description="Seconds from the request's arrival, waiting included, after which the best answer so far is sent "
        "with status `deadline`. `budget.seconds`, by contrast, counts from the search's own start and ends it as "
        "`complete`.",
    )

    @model_validator(mode="after")
    def options_of_a_stream(self) -> AnswerOptions:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options requires stream")
        return self


class SearchOptions(AnswerOptions):
    """How to search and how to answer, whatever is searched from."""

    search: Search | None = None
    sampling: Sampling | None = None
    seed: Annotated[int, Field(ge=0, le=(1 << 63) - 1)] | None = None
    defaults: bool = Field(
        default=True,
        description="Search with the search defaults of the release if the request says nothing; false: with the "
        "algorithm's own.",
    )


class ContinueRequest(AnswerOptions):
    """Let an ended or interrupted search go on."""

    budget: Budget | None = Field(  # type: ignore[valid-type]
        default=None,
        description="Limits of the whole search, what it has spent so far included; each must be larger than that. "
        "Those left out stay as they were.",
    )


class BranchRequest(SearchOptions):
    """Search on from a node of a logged tree; the task and its problem are that tree's."""

    node: Annotated[int, Field(ge=0, le=10_000_000)] = Field(description="The node to search on from.")


class Question(Request):
    """A prompt, as `prompt` or `messages`, and the task that judges its answers."""

    prompt: Annotated[str, Field(min_length=1, max_length=10_000_000)] | None = Field(
        default=None, description="Text to continue."
    )
    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)] | None = Field(
        default=None,
        description="In place of `prompt`: a conversation, put through the model's chat template.",
    )
    chat_template_kwargs: ChatTemplate | None = Field(
        default=None,
        description="Only with `messages`: variables of the template, such as `enable_thinking`.",
    )
    task: Task | None = None

    @model_validator(mode="after")
    def one_prompt(self) -> Question:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        if self.chat_template_kwargs is not None and self.messages is None:
            raise ValueError("chat_template_kwargs requires messages")
        return self


class SearchRequest(Question, SearchOptions):
    """Only `prompt` or `messages` is needed."""

    model: ModelName | None = None


# These records are sent as they are.
Answer = Annotated[records.Answer, DescribedAs(model_of(records.Answer, "Answer"))]
AnswerVerdict = Annotated[
    records.AnswerVerdict, DescribedAs(model_of(records.AnswerVerdict, "AnswerVerdict"))
]
UsedDefaults = Annotated[records.UsedDefaults, DescribedAs(model_of(records.UsedDefaults, "UsedDefaults"))]
PolicyUsage = Annotated[records.PolicyUsage, DescribedAs(model_of(records.PolicyUsage, "PolicyUsage"))]


class TreeLink(Reply):
    id: str
    url: str


class Usage(Reply):
    prompt_tokens: int
    completion_tokens: int = Field(description="Every generated token, merged duplicates included.")
    total_tokens: int
    scored_sequences: int
    simulations: int
    nodes: int
    seconds: float
    truncated_answers: int = Field(
        description="Draws cut by `sampling.max_tokens` or `search.max_depth` before the answer's end; worth 0."
    )
    pruned_branches: int = Field(description="Draws that safety scorers closed; worth 0.")
    by_policy: Mapping[str, PolicyUsage] | None = Field(
        default=None, description="The part of each policy, by name; null if the search names none."
    )


class SearchReply(Reply):
    id: str
    object: Literal["search"] = "search"
    created: int
    model: str
    status: records.Status
    stop_reason: records.StopReason | None
    answer: Answer | None
    candidates: list[Answer]
    verdict: AnswerVerdict | None = Field(
        default=None, description="On the answer; null while it runs, and if the task has no verifier."
    )
    defaults: UsedDefaults | None = Field(
        default=None, description="Search defaults that were used, since the request did not say; null: none."
    )
    tree: TreeLink
    continues: str | None = Field(
        default=None,
        description="Id of the search that this one goes on from; `usage` counts both. Null: none.",
    )
    release: str
    usage: Usage
    error: str | None = Field(default=None, description="The error, if the search did not end well.")
    tree_document: TreeDocument | None = Field(
        default=None, description="With `include_tree`: the whole tree."
    )


class Started(Reply):
    """Event `search.started`."""

    id: str
    object: Literal["search.started"] = "search.started"
    created: int
    model: str
    release: str
    tree: TreeLink


SHOWN = (
    *("id", "parent", "depth", "text", "value", "visits", "multiplicity", "terminal", "outcome", "pruned"),
    *("scores", "pruned_by", "policy", "simulation"),
)
"""Fields of a node that are sent while its search runs."""
GrowingNode = Annotated[
    Node,
    DescribedAs(
        renamed(
            Node,
            "GrowingNode",
            "A node of a running search, as it is now.",
            only=SHOWN,
            instead={
                "text": (
                    Annotated[str, BeforeValidator(lambda text: text[:LONGEST_TEXT])],
                    Field(
                        description=f"The text that it adds; cut after {LONGEST_TEXT} characters while the search runs."
                    ),
                ),
                "mean": (
                    float | None,
                    Field(description="Q: mean of what was backed up; before any visit, the value."),
                ),
            },
        )
    ),
]


class Progressed(Reply):
    """Event `search.progress`."""

    id: str
    object: Literal["search.progress"] = "search.progress"
    simulations: int
    tokens: int
    nodes: int
    seconds: float
    answer: Answer | None = Field(description="The best so far.")
    new_nodes: list[GrowingNode] | None = Field(
        default=None,
        description="With `stream_options.nodes`: nodes that are new or have changed since the event before, parents "
        "first, at most 500; what is more comes with the next event.",
    )


class ValueRequest(Request):
    model: ModelName | None = None
    prompt: Annotated[str, Field(max_length=10_000_000)] | Annotated[list[int], Field(max_length=200_000)] = (
        Field(description="Text or token ids.")
    )
    continuations: Annotated[
        list[Annotated[str, Field(max_length=10_000_000)] | Annotated[list[int], Field(max_length=200_000)]],
        Field(min_length=1, max_length=10_000),
    ] = Field(description="Answers so far, text or token ids; an empty one judges the prompt itself.")


class ValueUsage(Reply):
    prompt_tokens: int
    scored_sequences: int
    total_tokens: int


class ValueReply(Reply):
    object: Literal["value"] = "value"
    model: str
    release: str
    values: list[float] = Field(description="Expected outcomes in [0, 1], in the order of `continuations`.")
    scores: list[dict[str, float]] = Field(
        description="Value that each scorer gave it, safety scorers too, by their names in the settings."
    )
    usage: ValueUsage
