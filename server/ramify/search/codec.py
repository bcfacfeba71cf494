"""Trees as JSON: the one form in which they are logged, sent and trained on.

A tree survives the round trip unchanged; an unknown key or a missing field is an error, never dropped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import cache
from typing import Any

from ramify.search.records import (
    NO_ANSWER,
    Action,
    Answer,
    AnswerVerdict,
    BudgetLimits,
    Origin,
    PolicyUsage,
    Revision,
    Sampling,
    SearchParams,
    SearchPart,
    SearchState,
    Usage,
    UsedDefaults,
)
from ramify.search.tree import Completion, Node, Tree

SCHEMA_VERSION = 1


class BadTree(ValueError):
    """A document that is no tree of this schema."""


def tree_to_dict(tree: Tree) -> dict[str, Any]:
    """The tree as JSON-ready values; `tree_from_dict` is its inverse."""
    document = {"schema_version": SCHEMA_VERSION, **asdict(tree)}
    document["nodes"] = [compact(node, Node) for node in document["nodes"]]
    document["usage"] = compact(document["usage"], Usage)
    if document["continues"] is not None:
        document["continues"]["usage"] = compact(document["continues"]["usage"], Usage)
    document["params"] = compact(document["params"], SearchParams)
    document["params"]["action"] = compact(document["params"]["action"], Action)
    return compact(document, Tree)


def compact(document: Mapping[str, Any], record: type) -> dict[str, Any]:
    """Leave out of a record's document the fields that are `OMITTED` at their defaults."""
    left = dict(document)
    for name, default in omitted_fields(record).items():
        if left[name] == default:
            del left[name]
    return left


@cache
def omitted_fields(record: type) -> Mapping[str, Any]:
    """Return the default of each field of a record that is left out at its default."""
    return {f.name: f.default for f in fields(record) if f.metadata.get("omitted")}


def tree_from_dict(document: Mapping[str, Any]) -> Tree:
    """Read a tree. Raises `BadTree` if the document is not one of this schema version, or its nodes do not form one."""
    data = {**omitted_fields(Tree), **document}
    version = data.pop("schema_version", None)
    if version != SCHEMA_VERSION:
        raise BadTree(f"schema_version is {version!r}; this Ramify reads {SCHEMA_VERSION}")
    try:
        data["params"] = _params(data["params"])
        data["sampling"] = _record(Sampling, data["sampling"])
        data["prompts"] = _prompts(data["prompts"])
        data["usage"] = _usage(data["usage"])
        data["nodes"] = [_node(n) for n in data["nodes"]]
        data["completions"] = [_record(Completion, c) for c in data["completions"]]
        data["answer"] = None if data["answer"] is None else _record(Answer, data["answer"])
        data["candidates"] = [_record(Answer, a) for a in data["candidates"]]
        data["origin"] = _record(Origin, data["origin"]) if data["origin"] is not None else None
        data["defaults"] = _record(UsedDefaults, data["defaults"]) if data["defaults"] is not None else None
        data["verdict"] = _record(AnswerVerdict, data["verdict"]) if data["verdict"] is not None else None
        data["continues"] = _part(data["continues"]) if data["continues"] is not None else None
        data["search_state"] = (
            _record(SearchState, data["search_state"]) if data["search_state"] is not None else None
        )
        tree: Tree = _record(Tree, data)
    except (KeyError, TypeError, AttributeError) as error:
        raise BadTree(f"not a tree: {error!r}") from error
    check_structure(tree)
    return tree


def check_structure(tree: Tree) -> None:
    """Raise `BadTree` unless parents, children and depths fit together, numbers are in their ranges, and whatever names
    a node names one of the tree's."""
    if not tree.nodes or tree.nodes[0].parent is not None:
        raise BadTree("node 0 must be the root")
    named_children: set[int] = set()  # a root may have thousands, too many to look through for each
    for i, node in enumerate(tree.nodes):
        if node.id != i:
            raise BadTree(f"node {i} calls itself {node.id}")
        if len(node.logprobs) != len(node.tokens):
            raise BadTree(f"node {i} has {len(node.tokens)} tokens and {len(node.logprobs)} log-probs")
        numbers = [node.prior, node.value_sum, node.fresh_value_sum, *node.logprobs]
        numbers += [x for x in (node.value, node.outcome) if x is not None]
        if not all(math.isfinite(x) for x in numbers):
            raise BadTree(f"node {i} holds a number that is not finite")
        if any(not 0 <= x <= 1 for x in (node.prior, node.value, node.outcome) if x is not None):
            raise BadTree(f"node {i} has a prior, value or outcome outside [0, 1]")
        if any(not 0 <= x <= 1 for x in (node.scores or {}).values()):  # NaN is in no range
            raise BadTree(f"node {i} has a score outside [0, 1]")
        if node.stands_for is not None and not 0 < node.stands_for < math.inf:  # NaN is in no range
            raise BadTree(f"node {i} stands for {node.stands_for} draws")
        if node.drawn_by is not None and sum(node.drawn_by.values()) != node.multiplicity:
            raise BadTree(
                f"node {i} was drawn {node.multiplicity} times, and by its policies {node.drawn_by}"
            )
        if (fault := _revision_fault(node)) is not None:
            raise BadTree(f"node {i} {fault}")
        if (node.pruned_by is None) != (node.terminal != "pruned"):
            raise BadTree(f"node {i} ends as {node.terminal} and was pruned by {node.pruned_by}")
        if not -1e-6 <= node.value_sum <= node.visits + 1e-6:
            raise BadTree(f"node {i} has {node.visits} visits whose values sum to {node.value_sum}")
        for child in node.children:
            if not i < child < len(tree.nodes) or tree.nodes[child].parent != i:
                raise BadTree(f"node {i} names {child}, which is no child of it")
        named_children.update(node.children)
        if i and (node.parent is None or not 0 <= node.parent < i):
            raise BadTree(f"node {i} has no earlier parent")
        if i and i not in named_children:
            raise BadTree(f"node {i} is unknown to its parent")
        if i and node.parent is not None and node.depth != tree.nodes[node.parent].depth + 1:
            raise BadTree(f"node {i} has depth {node.depth}")
    said = tree.verdict.outcome if tree.verdict else None
    if said is not None and not 0 <= said <= 1:
        raise BadTree(f"the verdict's outcome is {said}, outside [0, 1]")
    if (tree.origin is None) != (tree.parent_tree is None):
        raise BadTree("parent_tree and origin go together")
    if tree.continues is not None and not 0 < tree.continues.usage.nodes <= len(tree.nodes):
        raise BadTree(
            f"the tree has {len(tree.nodes)} nodes and continues one of {tree.continues.usage.nodes}"
        )
    # The library's trees have no ids.
    if tree.id and tree.continues is not None and tree.continues.tree == tree.id:
        raise BadTree("the tree continues itself")
    if tree.origin is not None and not 0 <= tree.origin.tokens <= len(tree.prompt_tokens):
        raise BadTree(
            f"{tree.origin.tokens} of {len(tree.prompt_tokens)} prompt tokens are its parent's answer"
        )
    answered = [a.node for a in (tree.answer, *tree.candidates) if a is not None]
    for named in (*tree.committed, *(c.node for c in tree.completions), *answered):
        if not 0 <= named < len(tree.nodes):
            raise BadTree(f"node {named} is named but not there")


def _revision_fault(node: Node) -> str | None:
    """Say why answers below a node cannot have been drawn from the one that ends there; `None` if they can."""
    revision = node.revision
    if revision is None:
        return (
            "has answers below its own, and no prompt of theirs" if node.children and node.terminal else None
        )
    if node.terminal is None or node.terminal in NO_ANSWER:
        return "is to be bettered, and ends no answer"
    if (revision.closed is None) != bool(revision.prompt) or (revision.closed and node.children):
        return f"is closed by {revision.closed}, with {len(revision.prompt)} prompt tokens"
    return None


def _node(data: Mapping[str, Any]) -> Node:
    values: dict[str, Any] = {**omitted_fields(Node), **data}
    if values["revision"] is not None:
        values["revision"] = _record(Revision, values["revision"])
    node: Node = _record(Node, values)
    return node


def _prompts(data: Mapping[str, Any] | None) -> Mapping[str, tuple[int, ...]] | None:
    return None if data is None else {name: tuple(tokens) for name, tokens in data.items()}


def _usage(data: Mapping[str, Any]) -> Usage:
    values: dict[str, Any] = {**omitted_fields(Usage), **data}
    if values["by_policy"] is not None:
        values["by_policy"] = {n: _record(PolicyUsage, one) for n, one in values["by_policy"].items()}
    usage: Usage = _record(Usage, values)
    return usage


def _params(data: Mapping[str, Any]) -> SearchParams:
    values: dict[str, Any] = {**omitted_fields(SearchParams), **data}
    values["action"] = _record(Action, {**omitted_fields(Action), **values["action"]})
    values["budget"] = _record(BudgetLimits, values["budget"])
    params: SearchParams = _record(SearchParams, values)
    return params


def _part(data: Mapping[str, Any]) -> SearchPart:
    part: SearchPart = _record(SearchPart, {**data, "usage": _usage(data["usage"])})
    return part


_TUPLES = {
    *("prompt", "tokens", "logprobs", "prompt_tokens", "stop", "policies", "fruitful_plans", "plans"),
}


def _record(cls: type[Any], data: Mapping[str, Any]) -> Any:
    """Build a dataclass from a mapping with exactly its fields; JSON arrays become the tuples that records hold."""
    names = {f.name for f in fields(cls)}
    if unknown := set(data) - names:
        raise BadTree(f"{cls.__name__} has no field {sorted(unknown)[0]!r}")
    if missing := names - set(data):
        raise BadTree(f"{cls.__name__} lacks {sorted(missing)[0]!r}")
    return cls(**{k: tuple(v) if k in _TUPLES and isinstance(v, list) else v for k, v in data.items()})
