"""Keep beside a tree what it takes to go on with its search later, exactly where it was.

The tree holds every draw, value and statistic. What is left is little: where the algorithm stands, how much of the
search's randomness is used up, and the plans that were sent and never landed. These are sent again, with the seeds
that they had; whatever has landed is not drawn twice.

An algorithm's state is its attributes, whatever they are called: numbers, texts, nodes, and containers of them. A node
is written as its id. So an algorithm has nothing to do for it; one that keeps anything else cannot be taken on, and the
error says so. (2026-11-29: the other way would have been a journal of landings, replayed from the start. It grows with
the search, has to repeat every choice that a clock had a part in, and is worthless once any of that code changes.)
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any

from ramify.search.plans import Plan
from ramify.search.records import BudgetLimits, Hurdle, SearchPart
from ramify.search.tree import Node, Tree

if TYPE_CHECKING:
    from ramify.search.algorithms.base import Algorithm


class BadState(ValueError):
    """A search that cannot be taken on: its state is not there, or not one that this code has written."""


class CountedRandom(random.Random):
    """The generator of `random.Random(seed)`, which knows how far it has come.

    So its state is one number, and not the 2.5 kB of `getstate`. `gauss` is not counted: it keeps a number back."""

    words = 0
    """32-bit words drawn."""

    def random(self) -> float:
        self.words += 2
        return super().random()

    def getrandbits(self, k: int, /) -> int:
        self.words += (k + 31) // 32
        return super().getrandbits(k)

    def go_to(self, words: int) -> None:
        """Draw what a generator of this seed had drawn that had come so far."""
        if words > self.words:
            self.getrandbits(32 * (words - self.words))


# -- an algorithm ------------------------------------------------------------------------------------------------

_SHARED = frozenset({"builder", "rng", "tree", "budget", "params"})
"""The attributes that every algorithm is made with."""


def state_of(algorithm: Algorithm) -> dict[str, Any]:
    """Return an algorithm's own attributes as JSON-ready values. Raises `BadState` if one cannot be written."""
    own = {name: value for name, value in vars(algorithm).items() if name not in _SHARED}
    return {name: _plain(value, name) for name, value in own.items()}


def set_state(algorithm: Algorithm, state: Mapping[str, Any]) -> None:
    """Give a new algorithm the attributes that another of its kind had. Raises `BadState`."""
    own = {name: value for name, value in vars(algorithm).items() if name not in _SHARED}
    if own.keys() != state.keys():
        differ = ", ".join(sorted(own.keys() ^ state.keys()))
        raise BadState(
            f"algorithm {algorithm.params.algorithm!r} is not what it was when this search ran: {differ}"
        )
    for name, at_first in own.items():
        setattr(algorithm, name, _as(at_first, _read(state[name], algorithm.tree)))


def _plain(value: Any, name: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Node):
        return {"node": value.id}
    if isinstance(value, Mapping):
        return {"items": [[_plain(key, name), _plain(item, name)] for key, item in value.items()]}
    if isinstance(value, str | bytes) or not hasattr(value, "__iter__") or not hasattr(value, "__len__"):
        raise BadState(f"{name} holds a {type(value).__name__}, which cannot be kept")
    return [_plain(item, name) for item in value]


def _read(value: Any, tree: Tree) -> Any:
    if isinstance(value, list):
        return [_read(item, tree) for item in value]
    if not isinstance(value, Mapping):
        return value
    if value.keys() == {"node"}:
        return _node(value["node"], tree)
    return {_read(key, tree): _read(item, tree) for key, item in value["items"]}


def _as(at_first: Any, value: Any) -> Any:
    """Return a value in the container that a new algorithm has for it, such as a deque."""
    kind = type(at_first)
    return value if at_first is None or isinstance(value, kind) else kind(value)


def _node(number: int, tree: Tree) -> Node:
    if not 0 <= number < len(tree.nodes):
        raise BadState(f"names the node {number} of {len(tree.nodes)}")
    return tree.nodes[number]


# -- plans -------------------------------------------------------------------------------------------------------


def plan_record(plan: Plan, expansion: int) -> dict[str, Any]:
    """Return a plan that was sent as JSON-ready values. expansion: its number among those sent from its node."""
    simple = {f.name: getattr(plan, f.name) for f in fields(Plan) if f.name not in ("path", "hurdle")}
    hurdle = None if plan.hurdle is None else asdict(plan.hurdle)
    return {**simple, "path": [node.id for node in plan.path], "hurdle": hurdle, "expansion": expansion}


def plan_of(record: Mapping[str, Any], tree: Tree) -> tuple[Plan, int]:
    """Undo `plan_record`. Raises `BadState`."""
    data = dict(record)
    try:
        expansion = int(data.pop("expansion"))
        hurdle = data.pop("hurdle")
        path = tuple(_node(number, tree) for number in data.pop("path"))
        return Plan(**data, path=path, hurdle=None if hurdle is None else Hurdle(**hurdle)), expansion
    except (KeyError, TypeError) as error:
        raise BadState(f"a plan that cannot be sent again: {error!r}") from error


# -- the tree ----------------------------------------------------------------------------------------------------


def taken_on(tree: Tree, budget: BudgetLimits, *, tree_id: str = "", created_at: float = 0.0) -> Tree:
    """Return the tree of a search that goes on where `tree`'s has ended, under other limits, which count the whole of
    both. It takes the nodes over: `tree` must not be used any more.

    tree_id, created_at: the new tree's. Raises `BadState` if the search has kept no state."""
    if tree.search_state is None:
        raise BadState(
            "the search has kept no state: it was logged by an older version, or shared a batch's budget"
        )
    for node in tree.nodes:
        node.in_flight = node.expanding = 0
    return replace(
        tree,
        id=tree_id,
        created_at=created_at,
        params=replace(tree.params, budget=budget),
        continues=SearchPart(tree.id, tree.usage),
        status="running",
        stop_reason=None,
        error=None,
        answer=None,
        candidates=[],
        ungrouped=0,
        verdict=None,
    )
