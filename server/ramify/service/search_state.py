"""How a search looks to its asker: its state, why it has no answer, and which nodes have changed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from ramify.search.records import Answer, Status, StopReason, Usage
from ramify.search.tree import Node, Tree
from ramify.service.errors import SearchFailed, ServiceError, from_engine
from ramify.service.ids import search_id


@dataclass(frozen=True, slots=True)
class SearchState:
    """A search, running or ended, as its asker sees it."""

    id: str
    tree_id: str
    created_at: float
    model: str
    release: str
    status: Status
    stop_reason: StopReason | None
    answer: Answer | None
    """The best so far, where it runs."""
    candidates: tuple[Answer, ...]
    usage: Usage
    error: str | None
    tree: Tree


def state_of(tree: Tree, release: str) -> SearchState:
    """The state of an ended search. `release` is said where no node says which one wrote it."""
    return SearchState(
        id=search_id(tree.id),
        tree_id=tree.id,
        created_at=tree.created_at,
        model=tree.model,
        release=tree.releases[0] if tree.releases else release,
        status=tree.status,
        stop_reason=tree.stop_reason,
        answer=tree.answer,
        candidates=tuple(tree.candidates),
        usage=tree.usage,
        error=tree.error,
        tree=tree,
    )


def failure(tree: Tree, cause: Exception | None) -> ServiceError | None:
    """Why an ended search has nothing to send; `None` if it has an answer, or if its asker ended it.

    cause: the exception that ended it, if one did (`Search.failure`)."""
    if tree.answer is not None or tree.status in ("complete", "cancelled"):
        return None
    name = f"the search {search_id(tree.id)}"
    if tree.status == "deadline":
        return ServiceError("no_answer", f"{name} met its deadline before it had any answer")
    if tree.status == "drained":
        return ServiceError(
            "server_full", f"{name} ended without an answer: the server is shutting down", retry_after=30
        )
    if refusal := from_engine(cause):
        refusal.message = f"{name} ended without an answer: {refusal.message}"
        return refusal
    return SearchFailed(f"{name} failed: {(tree.error or 'the reason is in the server log')[:200]}")


MOST_NODES = 500
"""Nodes told at once."""

_Seen = tuple[int, int, float | None, float | None, bool]


class TreeDelta:
    """What one listener has been told of one tree."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._told: list[_Seen] = []
        """By node id; nodes are told in the order of their ids, so parents come before their children."""

    def news(self, most: int = MOST_NODES) -> list[Node]:
        """At most `most` nodes to tell: new ones first, then those that changed. They count as told from here on."""
        nodes = self._tree.nodes
        known = len(self._told)
        new = nodes[known : known + most]
        changed = (node for node, told in zip(nodes, self._told, strict=False) if _seen(node) != told)
        old = list(islice(changed, most - len(new)))
        for node in old:
            self._told[node.id] = _seen(node)
        self._told.extend(_seen(node) for node in new)
        return [*new, *old]


def _seen(node: Node) -> _Seen:
    return (node.visits, node.multiplicity, node.value, node.outcome, node.pruned)
