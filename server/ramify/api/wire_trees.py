"""The log, consumers and models on the wire."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ramify.api.wire_common import Name, Reply, Request
from ramify.api.wire_tree import TreeDocument
from ramify.search import records


class TreeSummary(Reply):
    seq: int = Field(description="Its place in the log.")
    id: str
    created: float
    status: str
    model: str
    release: str
    algorithm: str
    task: str | None
    nodes: int
    tokens: int
    value: float | None = Field(description="The outcome model's value of the chosen answer.")
    outcome: float | None = Field(
        description="The latest verdict on the chosen answer, in [0, 1]; 1 is right."
    )
    outcome_source: records.OutcomeSource | None = Field(description="Who gave it.")
    key: str = Field(description="Name of the API key that asked; empty without one.")
    train: bool
    prompt: str = Field(description="Its first 200 characters.")
    answer: str | None


class TreeList(Reply):
    object: Literal["list"] = "list"
    data: list[TreeSummary]
    has_more: bool
    next_before: int | None = Field(description="Give it as `before` for the next page.")


class LaterVerdict(Reply):
    seq: int
    id: str
    node: int | None
    answer: str | None
    outcome: float
    source: records.OutcomeSource
    key: str
    comment: str
    train: bool
    created: float


class TreeReply(Reply):
    object: Literal["tree"] = "tree"
    id: str
    seq: int
    sha256: str
    key: str
    outcome: float | None = Field(
        description="The latest verdict on the chosen answer, in [0, 1]; 1 is right."
    )
    outcome_source: records.OutcomeSource | None = Field(description="Who gave it.")
    tree: TreeDocument = Field(description="The tree as it was logged.")
    feedback: list[LaterVerdict]


class Deleted(Reply):
    id: str
    object: Literal["tree.deleted"] = "tree.deleted"
    deleted: bool = True


class FeedbackRequest(Request):
    """A verdict on one answer; with neither `node` nor `answer`, on the chosen one."""

    outcome: Annotated[float, Field(ge=0, le=1)] = Field(description="1 is right, 0 is wrong.")
    source: records.OutcomeSource = Field(
        default="human", description="Who says so: a person, or a program that checked."
    )
    node: Annotated[int, Field(ge=0, le=10_000_000)] | None = Field(
        default=None, description="The node that ends the answer."
    )
    answer: Annotated[str, Field(min_length=1, max_length=100_000)] | None = Field(
        default=None, description="The answer's text, where it is no node's."
    )
    comment: Annotated[str, Field(max_length=2000)] = ""

    @model_validator(mode="after")
    def one_answer(self) -> FeedbackRequest:
        if self.node is not None and self.answer is not None:
            raise ValueError("give node or answer, not both")
        return self


class ConsumerReply(Reply):
    object: Literal["consumer"] = "consumer"
    name: str
    cursor: int = Field(description="The last `seq` that it is done with.")
    version: int = Field(description="Also the ETag.")
    owner: str | None = Field(description="Who holds the lease.")
    key: str = Field(description="The API key that changed it last, and holds the lease if there is one.")
    lease_expires: float | None
    updated: float
    high_water: int = Field(description="The log's last `seq`.")


class ConsumerList(Reply):
    object: Literal["list"] = "list"
    data: list[ConsumerReply]


class ConsumerDeleted(Reply):
    name: str
    object: Literal["consumer.deleted"] = "consumer.deleted"
    deleted: bool = True


class ConsumerPut(Request):
    cursor: Annotated[int, Field(ge=0, le=(1 << 63) - 1)] | None = Field(
        default=None, description="Absent: as it was."
    )
    owner: Name | None = Field(default=None, description="Who takes or keeps the lease.")
    lease_seconds: Annotated[float, Field(gt=0, le=86_400)] | None = Field(
        default=None, description="With `owner`: how long nobody else may move the cursor. Absent: no lease."
    )
    rewind: bool = Field(default=False, description="Allow the cursor to go back.")

    @model_validator(mode="after")
    def lease_has_owner(self) -> ConsumerPut:
        if (self.owner is None) != (self.lease_seconds is None):
            raise ValueError("owner and lease_seconds go together")
        return self


class Model(Reply):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["ramify"] = "ramify"
    root: str = Field(description="The release that is served.")
    parent: str | None = Field(default=None, description="The model that a name for a search searches with.")
    search: dict[str, Any] | None = Field(
        default=None, description="The search that the name stands for; null for the model itself."
    )
    max_model_len: int = Field(description="Tokens of prompt and answer together.")


class ModelList(Reply):
    object: Literal["list"] = "list"
    data: list[Model]


class Health(Reply):
    status: str


class Version(Reply):
    version: str
    model: str
    release: str
