"""A running tree, told in pieces: which nodes are new or have changed since the last time."""

from __future__ import annotations

from itertools import islice

from ramify.search.tree import Node, Tree

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
