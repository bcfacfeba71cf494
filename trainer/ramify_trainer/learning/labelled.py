"""A logged tree and what is known of its answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ramify.search.tree import Tree

__all__ = ["LabelledTree"]


@dataclass(frozen=True, slots=True)
class LabelledTree:
    """What a round learns from. The tree itself is as it was logged."""

    tree: Tree
    outcomes: Mapping[int, float]
    """Node id of an answer's end → outcome in [0, 1]; absent where nobody could tell."""
    staleness: int = 0
    """Releases between the oldest one that wrote a node of the tree and the served one; 0 for the served one."""
