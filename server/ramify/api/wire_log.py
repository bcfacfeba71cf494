"""The log on the wire: logged trees and the log's lines, pages of it, feedback, consumers; a tree for Graphviz.

The models of logged trees are made of the records that are logged, so that none can drift. They describe and validate;
nothing is converted through them. A tree leaves the server as the bytes that were logged, since reading 15,000 nodes
into models and writing them again would cost seconds and change nothing.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from pydantic import (
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    RootModel,
    TypeAdapter,
    create_model,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core.core_schema import CoreSchema, definitions_schema, plain_serializer_function_ser_schema

from ramify.api.wire_common import Name, Reply, Request
from ramify.search import records
from ramify.search.algorithms import ALGORITHMS
from ramify.search.codec import omitted_fields
from ramify.search.records import BudgetLimits, SearchParams
from ramify.search.tree import Node, Tree
from ramify.treelog import Consumer, CorruptRow, Feedback, Summary

AlgorithmName = Annotated[
    str,
    Field(json_schema_extra=lambda schema: schema.update(enum=[*ALGORITHMS])),  # of those installed by then
]
_NAMES: Mapping[type, str] = {BudgetLimits: "LoggedLimits"}
"""Names of models that are not `Logged` and the record's."""


def described(record: type) -> dict[str, str]:
    """The docstrings below the fields of a dataclass, by field."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(record))).body
    assert isinstance(tree, ast.ClassDef)
    said = {}
    for field, below in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
            text = getattr(below.value, "value", None)
            if isinstance(text, str) and isinstance(field.target, ast.Name):
                said[field.target.id] = " ".join(text.split())
    return said


@cache
def model_of(record: type, name: str | None = None, about: str | None = None, **more: Any) -> type[Reply]:
    """Make the model of a dataclass, and of those inside it: the same fields, each required unless it may be left out.

    name, about: the model's, if they are not `Logged` with the record's name, and its docstring. more: the types of
    fields that the record does not have.
    """
    name = name or _NAMES.get(record, f"Logged{record.__name__}")
    about = about or " ".join((record.__doc__ or "").split())
    fields_of = _wire_fields(record, omitted_fields(record))
    return create_model(name, __base__=Reply, __doc__=about, __module__=__name__, **fields_of, **more)


def renamed(
    record: type,
    name: str,
    about: str | None = None,
    only: Collection[str] = (),
    instead: Mapping[str, Any] | None = None,
    **names: str,
) -> type[Reply]:
    """Make the model of a record that is sent in part, or under other names than the record's.

    only: the fields that are sent, by the record's names; all if not given. instead: type and `Field` of those that
    are sent otherwise than the record has them, and of attributes that are no fields. names: by the name under which a
    field is sent, the record's.
    """
    sent = {own: wire for wire, own in names.items()}
    kinds = {own: kind for own, kind in _wire_fields(record).items() if not only or own in only}
    made = {sent.get(own, own): kind for own, kind in {**kinds, **(instead or {})}.items()}
    return create_model(name, __base__=Reply, __doc__=about, __module__=__name__, **made)


def _wire_fields(record: type, defaults: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The fields of a record's model, which is read of its attributes. defaults: of those that may be left out."""
    said, hints, late = described(record), get_type_hints(record), defaults or {}
    made: dict[str, Any] = {}
    for field in fields(record):
        left_out = {"default": late[field.name]} if field.name in late else {}
        about_it = said[field.name].replace("`None`", "`null`") if field.name in said else None
        described_field = Field(description=about_it, validation_alias=field.name, **left_out)
        known = record is SearchParams and field.name == "algorithm"
        made[field.name] = (AlgorithmName if known else _wire_type(hints[field.name]), described_field)
    return made


def _wire_type(kind: Any) -> Any:
    """The type that JSON has for a field: models for records, lists for tuples."""
    if is_dataclass(kind) and isinstance(kind, type):
        return model_of(kind)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return Union[tuple(_wire_type(one) for one in inner)]  # noqa: UP007  (of a tuple known only now)
    if origin in (list, tuple):
        return list[_wire_type(inner[0])]  # type: ignore[misc]
    if origin is Mapping:
        return dict[inner[0], _wire_type(inner[1])]  # type: ignore[misc, valid-type]
    return kind


LoggedTree = model_of(
    Tree,
    "LoggedTree",
    "A search and its result: what was asked, what grew, what was spent, how it ended.",
    schema_version=Annotated[
        Literal[1],
        Field(
            description="Version of this schema; raised by any change other than a field that may be left out."
        ),
    ],
)


@dataclass(frozen=True, slots=True)
class DescribedAs:
    """Describes what is sent, a record or a plain JSON object, by a model, which also names a record's fields."""

    model: type[Reply]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema: Any = {**handler.resolve_ref_schema(handler(source))}
        schema.pop("ref", None)  # by which the record would be described itself
        if is_dataclass(source):
            schema["serialization"] = plain_serializer_function_ser_schema(self._sent)
        return cast(CoreSchema, schema)

    def _sent(self, record: Any) -> Reply:
        return self.model.model_validate(record, from_attributes=True)

    def __get_pydantic_json_schema__(self, _: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(definitions_schema(self.model.__pydantic_core_schema__, []))  # by reference


TreeDocument = Annotated[dict[str, Any], DescribedAs(LoggedTree)]
"""A logged tree as it is sent: not read into models on its way."""


class TreeRecord(Reply):
    """A line of the log: a tree."""

    seq: int = Field(description="Its place in the log.")
    kind: Literal["tree"]
    tree_id: str
    key_id: str = Field(description="The API key that asked; empty if none was needed.")
    tree: TreeDocument


OutcomeRecord = model_of(
    Feedback,
    "OutcomeRecord",
    "A line of the log: feedback on an answer of a tree.",
    kind=Literal["outcome"],
)
CorruptRecord = model_of(
    CorruptRow,
    "CorruptRecord",
    "A line of the log: a row that is not what was written. Count it and go on.",
    kind=Literal["corrupt"],
)


class LogRecord(
    RootModel[Annotated[TreeRecord | OutcomeRecord | CorruptRecord, Field(discriminator="kind")]]  # type: ignore[valid-type]
):
    """One line of `GET /v1/trees?after=`."""


# -- trees, feedback and consumers over HTTP -------------------------------------------------------------------


CONTINUES = "Id of the tree that this one goes on from, whose cost it counts too; null: none."
TreeSummary = Annotated[
    Summary,
    DescribedAs(
        renamed(
            Summary,
            "TreeSummary",
            instead={"continues": (str | None, Field(default=None, description=CONTINUES))},
            id="tree_id",
            created="created_at",
            nodes="n_nodes",
            tokens="n_tokens",
            value="best_value",
            key="key_id",
        )
    ),
]


class TreeList(Reply):
    object: Literal["list"] = "list"
    data: list[TreeSummary]
    has_more: bool
    next_before: int | None = Field(description="Give it as `before` for the next page.")


LaterVerdict = Annotated[
    Feedback,
    DescribedAs(
        renamed(
            Feedback,
            "LaterVerdict",
            only=[field.name for field in fields(Feedback) if field.name != "tree_id"],
            id="outcome_id",
            key="key_id",
            created="created_at",
        )
    ),
]


class TreeReply(Reply):
    object: Literal["tree"] = "tree"
    id: str
    seq: int
    sha256: str
    key: str
    outcome: float | None = Field(
        description="The latest outcome of the chosen answer, in [0, 1]; 1 is right."
    )
    outcome_source: records.OutcomeSource | None = Field(description="Who gave it.")
    tree: TreeDocument = Field(description="The tree as it was logged.")
    feedback: list[LaterVerdict]


class Deleted(Reply):
    id: str
    object: Literal["tree.deleted"] = "tree.deleted"
    deleted: bool = True


class FeedbackRequest(Request):
    """An outcome of one answer; with neither `node` nor `answer`, of the chosen one."""

    outcome: Annotated[float, Field(ge=0, le=1)] = Field(description="1 is right, 0 is wrong.")
    source: records.OutcomeSource = Field(
        default="human", description="Who says so: a person, or a program that checked."
    )
    node: Annotated[int, Field(ge=0, le=10_000_000)] | None = Field(
        default=None, description="The node that ends the answer."
    )
    answer: Annotated[str, Field(min_length=1, max_length=100_000)] | None = Field(
        default=None, description="The answer's text, if it is no node's."
    )
    comment: Annotated[str, Field(max_length=2000)] = ""

    @model_validator(mode="after")
    def one_answer(self) -> FeedbackRequest:
        if self.node is not None and self.answer is not None:
            raise ValueError("give node or answer, not both")
        return self


ConsumerReply = Annotated[
    Consumer,
    DescribedAs(
        renamed(
            Consumer,
            "ConsumerReply",
            instead={"object": (Literal["consumer"], "consumer")},
            key="key_id",
            updated="updated_at",
        )
    ),
]


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


def sent(kind: Any, record: object) -> dict[str, Any]:
    """Return a record as it is sent. kind: its type here, such as `TreeSummary`."""
    return cast(dict[str, Any], _adapter(kind).dump_python(record))


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Make a type's serializer once: that takes longer than to send a page of records."""
    return TypeAdapter(kind)


# -- Graphviz: `curl …?format=dot | dot -Tsvg > tree.svg` ------------------------------------------------------


LONGEST_LABEL = 60


def dot(tree: Tree) -> str:
    """One box a node: what it says, its visits, its value; the chosen answer's path is bold."""
    return "\n".join(_lines(tree)) + "\n"


def _lines(tree: Tree) -> Iterator[str]:
    chosen = {n.id for n in tree.lineage(tree.nodes[tree.answer.node])} if tree.answer else set()
    yield "digraph tree {"
    yield f"  // {tree.id}, {tree.params.algorithm}, {len(tree.nodes)} nodes"
    yield '  node [shape=box, fontname="monospace", fontsize=10]; rankdir=LR;'
    for node in tree.nodes:
        text = tree.prompt if node.parent is None else node.text
        style = ', style="bold"' if node.id in chosen else ""
        yield f'  n{node.id} [label={quoted(text.strip())}{_figures(node)}"{style}];'
        if node.parent is not None:
            style = ' [style="bold"]' if node.id in chosen else ""
            yield f"  n{node.parent} -> n{node.id}{style};"
    yield "}"


def quoted(text: str) -> str:
    """The opening half of a DOT string, without its closing quote."""
    short = text if len(text) <= LONGEST_LABEL else text[: LONGEST_LABEL - 1] + "…"
    escaped = short.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\l").replace("\r", "")
    return '"' + "".join(c if c.isprintable() else "\ufffd" for c in escaped)


def _figures(node: Node) -> str:
    figures = [f"N={node.visits}"]
    figures += [f"Q={node.mean:.2f}"] if node.mean is not None else []
    ended = node.terminal if node.pruned_by is None else f"pruned by {node.pruned_by}"
    figures += [ended] if ended else []
    figures += [f"outcome={node.outcome:g}"] if node.outcome is not None else []
    return "\\n" + " ".join(figures)
