"""How a search looks to its caller: its ids, its release, the failure in place of an answer, the nodes that changed.

A search and its tree share one UUIDv7 (RFC 9562), so that ids sort by time.
"""

from __future__ import annotations

import re
import secrets
from itertools import islice

from ramify.engines import Serving
from ramify.search.tree import Node, Tree
from ramify.service.errors import SearchFailed, ServiceError, from_engine

SEARCH = "srch_"
TREE = "tree_"
BATCH = "batch_"
_HEX = re.compile(r"[0-9a-f]{32}")
_OWNED = re.compile(r"(?:srch_|tree_|batch_|cmpl-|chatcmpl-|resp_)[0-9a-f]{32}\Z")
"""Ids that servers give. An `x-request-id`, by which completions are cancelled too, is the caller's own and may end so
by chance."""


def uuid7(now: float, replica: int | None = None) -> str:
    """Return 32 hexadecimal digits: 48 bits of milliseconds, then version, variant and 74 random bits.

    replica: number of the server, 0 to 255, which takes the place of the last 8."""
    milliseconds = int(now * 1000) & (1 << 48) - 1
    random = secrets.randbits(74)
    value = milliseconds << 80 | 0x7 << 76 | (random >> 62) << 64 | 0b10 << 62 | random & (1 << 62) - 1
    return owned(f"{value:032x}", replica)


def owned(number: str, replica: int | None) -> str:
    """Return hexadecimal digits that end with the number of the server that gave them, so that whatever stands in front
    of several can tell whose they are; `None`: the digits as they are."""
    return number if replica is None else f"{number[:-2]}{replica:02x}"


def numbered(given: str) -> int | None:
    """Return the number of the server that gave an id, by its last two digits; `None` if it ends otherwise."""
    return int(given[-2:], 16) if _OWNED.match(given) else None


def time_of(tree_id: str) -> float:
    """Return the Unix seconds at which an id was given."""
    return int(tree_id.removeprefix(TREE)[:12], 16) / 1000


def search_id(tree_id: str) -> str:
    """Return the id of the search that made a tree."""
    return SEARCH + tree_id.removeprefix(TREE)


def tree_id(given: str) -> str | None:
    """Return a tree's id, given its own or its search's; `None` if it is neither."""
    for prefix in (SEARCH, TREE):
        if given.startswith(prefix) and _HEX.fullmatch(given[len(prefix) :]):
            return TREE + given[len(prefix) :]
    return None


def release_of(tree: Tree, serving: Serving) -> str:
    """Return the release that wrote a tree; if no node says so, the one that is served."""
    return tree.releases[0] if tree.releases else serving.release


def failure(tree: Tree, cause: Exception | None) -> ServiceError | None:
    """Return why an ended search has nothing to send; `None` if it has an answer, or if its caller ended it.

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
"""Nodes in one message."""

_Seen = tuple[int, int, float | None, float | None, bool]


class TreeDelta:
    """The nodes of a growing tree that are new to one listener, or have changed since it was told of them."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._told: list[_Seen] = []
        """State of each node when it was told, by id. Nodes go in the order of their ids, parents before children."""

    def news(self, most: int = MOST_NODES) -> list[Node]:
        """Return at most `most` nodes, new ones first, then those that changed. They count as told from here on."""
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
