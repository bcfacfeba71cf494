"""A search as it was asked for: only what the caller said, each value already within its bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ramify.rewards import Message
from ramify.search.allocation import LEAST_GAIN
from ramify.search.batch import PARALLEL
from ramify.search.tree import Tree


@dataclass(frozen=True, slots=True)
class Branch:
    """A node of a logged tree from which to search on."""

    tree: Tree
    node: int


@dataclass(frozen=True, slots=True)
class SearchSpec:
    """Everything that a caller may say about one search."""

    prompt: str | tuple[int, ...] | None = None
    """Text or token ids to continue; `None` if `messages` or a `branch` are given."""
    messages: tuple[Message, ...] = ()
    """A conversation, put through the model's chat template."""
    template: Mapping[str, Any] = field(default_factory=dict)
    """Variables of the chat template."""
    branch: Branch | None = None
    """Stands in place of a prompt; the task and its problem are then the tree's own."""
    model: str | None = None
    task: str | None = None
    problem: Mapping[str, Any] | None = None
    search: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `SearchParams` that were given; `action` and `budget` are mappings of the same kind. Fields left out
    take the defaults of release, algorithm and server, which are known only when the search is prepared."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `Sampling` that were given."""
    defaults: bool = True
    """Search with the search defaults of the release if nothing was given; false: with the algorithm's own."""
    share: int | None = None
    """Tokens for which those defaults are chosen, if they are not those of the budget: an even share of a batch's."""
    greedy_by_habit: bool = False
    """True if the client sends a temperature of 0 without meaning it: a search that finds nothing new at 0 then takes
    the default."""
    seed: int | None = None
    train: bool = True
    deadline: float | None = None
    """Seconds from the request's arrival, waiting included; `None`: the server's default."""


@dataclass(frozen=True, slots=True)
class BatchSpec:
    """Everything that a caller may say about searches that share a budget."""

    searches: tuple[SearchSpec, ...]
    """In the request's order; all with the same `deadline`."""
    tokens: int | None = None
    """Generated tokens of all of them together."""
    seconds: float | None = None
    """Seconds from their common start."""
    least_gain: float = LEAST_GAIN
    """See `ramify.search.allocation`; in [0, 1]."""
    parallel: int = PARALLEL
    """Simulations in flight, of all of them together."""
