"""POST /v1/search/batch on the wire: prompts that share a budget, each searched like a single one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ramify.api.wire_common import ModelName, Reply, Request
from ramify.api.wire_search import Progressed, Question, SearchOptions, SearchReply, Started, Task
from ramify.search.allocation import LEAST_GAIN
from ramify.search.batch import PARALLEL

MOST_PROMPTS = 1024
"""Prompts of one batch, whatever the server's own limit is."""


class SharedBudget(Request):
    """Limits on all searches together; those of each alone stand in `search.budget`."""

    tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = Field(
        default=None, description="Generated tokens; at least `sampling.max_tokens` for each prompt."
    )
    seconds: Annotated[float, Field(ge=0.001, le=86_400)] | None = Field(
        default=None, description="Seconds from the searches' common start."
    )
    least_gain: Annotated[float, Field(ge=0, le=1)] = Field(
        default=LEAST_GAIN,
        description="A prompt gets no more once another answer would be expected to make its best one right less often "
        "than this.",
    )

    @model_validator(mode="after")
    def some_limit(self) -> SharedBudget:
        if self.tokens is None and self.seconds is None:
            raise ValueError("give tokens, seconds or both")
        return self


class BatchRequest(SearchOptions):
    """Prompts, searched with the same parameters on one budget, which goes where it is expected to bring most."""

    model: ModelName | None = None
    prompts: Annotated[list[Question], Field(min_length=1, max_length=MOST_PROMPTS)]
    task: Task | None = Field(default=None, description="The task of the prompts that name none.")
    budget: SharedBudget
    parallel: Annotated[int, Field(ge=1, le=4096)] = Field(
        default=PARALLEL,
        description="Simulations in flight, of all searches together; each also keeps to `search.parallel`.",
    )


class BatchAnswer(SearchReply):
    """The search of one prompt."""

    index: int = Field(description="The prompt's place in `prompts`, from 0.")


class BatchUsage(Reply):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    scored_sequences: int
    simulations: int
    nodes: int
    seconds: float = Field(description="From the searches' common start to the end of the last.")
    spread: list[int] = Field(description="Generated tokens of each prompt, in order.")


class BatchCompleted(Reply):
    """Event `batch.completed`."""

    id: str
    object: Literal["batch"] = "batch"
    created: int
    model: str
    usage: BatchUsage


class BatchReply(BatchCompleted):
    results: list[BatchAnswer] = Field(description="In the order of `prompts`.")


class BatchStarted(Reply):
    """Event `batch.started`."""

    id: str
    object: Literal["batch.started"] = "batch.started"
    created: int
    model: str
    release: str
    searches: list[Started] = Field(description="In the order of `prompts`.")


class BatchProgressed(Progressed):
    """Event `search.progress` in the stream of a batch."""

    index: int = Field(description="The prompt's place in `prompts`, from 0.")
