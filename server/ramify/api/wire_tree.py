"""The logged tree and the log's lines, as a schema: made of the records that are logged, so that none can drift.

These models describe and validate; nothing is converted through them. A tree leaves the server as the bytes that were
logged, since reading 15,000 nodes into models and writing them again would cost seconds and change nothing.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import Field, GetJsonSchemaHandler, RootModel, create_model
from pydantic.json_schema import JsonSchemaValue

from ramify.api.wire_common import Reply
from ramify.search.codec import LATE, LATE_PARAMS
from ramify.search.records import BudgetLimits, SearchParams
from ramify.search.tree import Tree
from ramify.treelog import CorruptRow, Feedback

_LATE: Mapping[type, Mapping[str, Any]] = {Tree: LATE, SearchParams: LATE_PARAMS}
"""Fields that are left out if they say nothing."""
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
def model_of(record: type) -> type[Reply]:
    """The model of a dataclass, and of those inside it: the same fields, each required unless it may be left out."""
    said, hints, late = described(record), get_type_hints(record), _LATE.get(record, {})
    made: dict[str, Any] = {}
    for field in fields(record):
        left_out = {"default": late[field.name]} if field.name in late else {}
        about = Field(description=said[field.name].replace("`None`", "`null`"), **left_out)
        made[field.name] = (_wire_type(hints[field.name]), about)
    about_class = " ".join((record.__doc__ or "").split())
    name = _NAMES.get(record, f"Logged{record.__name__}")
    return create_model(name, __base__=Reply, __doc__=about_class, **made)


def _wire_type(kind: Any) -> Any:
    """The type that JSON has for a field: models for records, lists for tuples."""
    if is_dataclass(kind) and isinstance(kind, type):
        return model_of(kind)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return Union[tuple(_wire_type(one) for one in inner)]  # noqa: UP007  (of a tuple known only now)
    if origin in (list, tuple):
        return list[_wire_type(inner[0])]  # type: ignore[misc]
    return dict[str, Any] if origin is Mapping else kind


class LoggedTree(model_of(Tree)):  # type: ignore[misc]  # a model that is made of a record
    """A search and its result: what was asked, what grew, what was spent, how it ended."""

    schema_version: Literal[1] = Field(
        description="Version of this schema; raised by any change other than a field that may be left out."
    )


class _Described:
    """Shows a plain JSON object as what it holds."""

    def __get_pydantic_json_schema__(self, _: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(LoggedTree.__pydantic_core_schema__)


TreeDocument = Annotated[dict[str, Any], _Described()]
"""A logged tree as it is sent: not read into models on its way."""


class TreeRecord(Reply):
    """A line of the log: a tree."""

    seq: int = Field(description="Its place in the log.")
    kind: Literal["tree"]
    tree_id: str
    key_id: str = Field(description="The API key that asked; empty where none was needed.")
    tree: TreeDocument


class OutcomeRecord(model_of(Feedback)):  # type: ignore[misc]  # a model that is made of a record
    """A line of the log: a later verdict on an answer of a tree."""

    kind: Literal["outcome"]


class CorruptRecord(model_of(CorruptRow)):  # type: ignore[misc]  # a model that is made of a record
    """A line of the log: a row that is not what was written. Count it and go on."""

    kind: Literal["corrupt"]


class LogRecord(
    RootModel[Annotated[TreeRecord | OutcomeRecord | CorruptRecord, Field(discriminator="kind")]]
):
    """One line of `GET /v1/trees?after=`."""
