"""A tree as one packed sequence: prompt and shared prefixes once, each token seeing its own ancestors only.

Positions count from the beginning of the prompt along each path, and a token attends to its node's ancestors and to
its node up to itself; so every token's hidden state is what it would be in its own path's sequence, at a fraction of
the tokens. A tree above the limit is split into pieces: consecutive nodes in depth-first order, with the ancestors that
they need as context, which teaches nothing there.

Models whose layers look at more than a mask (windows, chunks, recurrences) would read a packed tree wrongly: without a
limit a piece is one whole path, and each node counts on the first path that leads through it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ramify.search.tree import Node, Tree
from ramify_trainer.learning.targets import SMALLEST, PolicyTargets

__all__ = ["Piece", "Reading", "ValueTargets", "ints", "pack", "value_place"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
ints = np.int64
ValueTargets = Mapping[int, tuple[float, float]]
"""Target in [0, 1] and weight by node id."""


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """Places at which one output of a network is read, k of them, and what is learned there."""

    at: Ints
    """[k], places in the tokens: the token before the one that is judged (policy), `value_place` (value)."""
    labels: Ints
    """[k], the token that follows (policy); the node's id (value)."""
    columns: Mapping[str, Floats]
    """[k] each: `weight`, and the objective's own."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Nodes of one tree, packed. T tokens, n nodes."""

    tokens: Ints
    """[T]"""
    positions: Ints
    """[T], from 0 at the prompt's first token."""
    owner: Ints
    """[T], the node that each token belongs to, as a row of `sees`; not falling."""
    sees: NDArray[np.bool_]
    """[n, n], whether a node (row) has another (column) as ancestor, or is it."""
    readings: Mapping[str, Reading]
    """By output: `policy`, `value`, or both."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def signal(self) -> int:
        """Tokens that teach the policy: their advantage is not 0, or they are imitated. All tokens if it is not read,
        and 1 at least."""
        if "policy" not in self.readings:
            return len(self)
        columns = self.readings["policy"].columns
        taught = columns["weight"] * np.abs(columns["advantage"])
        teaches = (taught > SMALLEST) | (columns["imitated"] > 0)
        return max(1, int(teaches.sum()))

    def mask(self) -> NDArray[np.bool_]:
        """Return [T, T], whether a token (row) attends to another (column)."""
        allowed: NDArray[np.bool_] = self.sees[self.owner[:, None], self.owner[None, :]]
        order = np.arange(len(self))
        return allowed & (order[:, None] >= order[None, :])


@dataclass(frozen=True, slots=True)
class _Layout:
    nodes: Sequence[Node]
    """Root first, parents before children."""
    taught: frozenset[int]
    """Ids of those that count in this piece; the others are context."""


def pack(
    tree: Tree,
    limit: int | None,
    *,
    policy: PolicyTargets | None = None,
    value: ValueTargets | None = None,
    closing: Set[int] = frozenset(),
) -> list[Piece]:
    """Return pieces of at most `limit` tokens if single paths allow it. limit: None makes each path a piece of its own.

    policy: reads `policy` before every token of a node that teaches. Columns: `weight`, `advantage` (1 without one),
    `imitated`, `logprob` (μ's, logged), `temperature`. value: reads `value` where every node with a target is judged,
    which depends on the tokens that are `closing` (see `value_place`). Columns: `weight`, `target`, `end` (1 at the
    ends of answers, else 0)."""
    taught = {*(policy.nodes if policy else ()), *(value or ())}
    pieces = []
    for layout in _layouts(tree, taught, limit):
        packed = _pack(tree, layout)
        readings = {}
        if policy is not None:
            readings["policy"] = _policy_reading(packed, tree, layout, policy)
        if value is not None:
            readings["value"] = _value_reading(packed, layout, value, closing)
        pieces.append(Piece(packed.tokens, packed.positions, packed.owner, packed.sees, readings))
    return pieces


def value_place(tokens: Sequence[int] | Ints, last: int, before: int, closing: Set[int]) -> int:
    """Return the place at which a sequence is judged whose last token is at `last`, and the one before it at `before`.

    The first, unless it only closes what was written: then the second, as the server's engine has it. closing: such
    tokens (`ramify.tokens.closing_tokens`) if a head on the policy's trunk judges; none if a value model does."""
    return before if int(tokens[last]) in closing else last


def _layouts(tree: Tree, taught: Set[int], limit: int | None) -> Iterator[_Layout]:
    """Split the nodes that matter (those taught, and what is above them) into pieces."""
    needed = _needed(tree, taught)
    return _paths(tree, taught, needed) if limit is None else _packs(tree, taught, needed, limit)


def _paths(tree: Tree, taught: Set[int], needed: set[int]) -> Iterator[_Layout]:
    """Yield every path to a last needed node."""
    left = set(taught)
    for node in _depth_first(tree, needed):
        if needed.isdisjoint(node.children):
            path = tree.lineage(node)
            yield _Layout(path, frozenset(left.intersection(n.id for n in path)))
            left.difference_update(n.id for n in path)


def _packs(tree: Tree, taught: Set[int], needed: set[int], limit: int) -> Iterator[_Layout]:
    """Yield pieces of at most `limit` tokens."""
    nodes: dict[int, Node] = {}
    mine: set[int] = set()
    size = 0
    for node in _depth_first(tree, needed):
        if size + len(_tokens(tree, node)) > limit and mine:
            yield _Layout(list(nodes.values()), frozenset(mine))
            nodes = {n.id: n for n in tree.lineage(node)[:-1]}
            mine, size = set(), sum(len(_tokens(tree, n)) for n in nodes.values())
        nodes[node.id] = node
        size += len(_tokens(tree, node))
        if node.id in taught:
            mine.add(node.id)
    if mine:
        yield _Layout(list(nodes.values()), frozenset(mine))


def _needed(tree: Tree, taught: Set[int]) -> set[int]:
    needed: set[int] = set()
    for i in taught:
        at: int | None = i
        while at is not None and at not in needed:
            needed.add(at)
            at = tree.nodes[at].parent
    return needed


def _depth_first(tree: Tree, needed: set[int]) -> Iterator[Node]:
    stack = [0]
    while stack:
        node = tree.nodes[stack.pop()]
        if node.id in needed:
            yield node
            stack.extend(reversed(node.children))


def _tokens(tree: Tree, node: Node) -> tuple[int, ...]:
    return tree.prompt_tokens if node.parent is None else node.tokens


@dataclass(frozen=True, slots=True)
class _PackedTree:
    tokens: Ints
    positions: Ints
    owner: Ints
    sees: NDArray[np.bool_]
    starts: Sequence[int]
    """Places at which each node's tokens begin."""
    lasts: Sequence[tuple[int, int]]
    """Places of the last token at or above each node, and of the one before it (its own if there is none)."""


def _pack(tree: Tree, layout: _Layout) -> _PackedTree:
    if not tree.prompt_tokens:
        raise ValueError(f"{tree.id} has no prompt tokens: nothing predicts its first token")
    row = {node.id: i for i, node in enumerate(layout.nodes)}
    sees = np.eye(len(layout.nodes), dtype=np.bool_)
    starts: list[int] = []
    lasts: list[tuple[int, int]] = []
    positions, at = [], 0
    lengths = [len(_tokens(tree, node)) for node in layout.nodes]
    for i, (node, length) in enumerate(zip(layout.nodes, lengths, strict=True)):
        above = None if node.parent is None else row[node.parent]
        if above is not None:
            sees[i] |= sees[above]
        starts.append(at)
        begin = 0 if above is None else len(tree.prompt_tokens) + node.length - length
        positions.append(np.arange(begin, begin + length))
        at += length
        last = (0, 0) if above is None else lasts[above]
        for place in range(at - min(length, 2), at):
            last = place, last[0]
        lasts.append(last)
    tokens = np.fromiter((t for node in layout.nodes for t in _tokens(tree, node)), dtype=ints, count=at)
    owner = np.repeat(np.arange(len(layout.nodes)), lengths)
    return _PackedTree(
        tokens, np.concatenate(positions).astype(ints), owner.astype(ints), sees, starts, lasts
    )


def _policy_reading(packed: _PackedTree, tree: Tree, layout: _Layout, targets: PolicyTargets) -> Reading:
    row = {node.id: i for i, node in enumerate(layout.nodes)}
    mine = layout.taught & targets.nodes
    taught = [node for node in layout.nodes if node.id in mine and node.tokens]
    lengths = [len(node.tokens) for node in taught]
    places = []
    for node in taught:
        assert node.parent is not None
        start = packed.starts[row[node.id]]
        places.append(np.arange(start - 1, start - 1 + len(node.tokens)))
        places[-1][0] = packed.lasts[row[node.parent]][0]
    columns = {
        "weight": np.repeat([targets.weights.get(n.id, 0.0) for n in taught], lengths),
        "imitated": np.repeat([targets.imitated.get(n.id, 0.0) for n in taught], lengths),
        "advantage": np.repeat([targets.advantages.get(n.id, 1.0) for n in taught], lengths),
        "logprob": np.asarray([x for n in taught for x in n.logprobs]),
        "temperature": np.full(sum(lengths), tree.sampling.temperature or 1.0),
    }
    labels = np.fromiter((t for n in taught for t in n.tokens), dtype=ints, count=sum(lengths))
    at = np.concatenate(places) if places else np.empty(0, dtype=ints)
    return _reading(at, labels, columns)


def _value_reading(packed: _PackedTree, layout: _Layout, targets: ValueTargets, closing: Set[int]) -> Reading:
    mine = layout.taught & targets.keys()
    taught = [(i, node) for i, node in enumerate(layout.nodes) if node.id in mine]
    columns = {
        "weight": np.asarray([targets[node.id][1] for _, node in taught]),
        "target": np.asarray([targets[node.id][0] for _, node in taught]),
        "end": np.asarray([float(node.terminal is not None) for _, node in taught]),
    }
    at = np.asarray([value_place(packed.tokens, *packed.lasts[i], closing) for i, _ in taught], dtype=ints)
    return _reading(at, np.asarray([node.id for _, node in taught], dtype=ints), columns)


def _reading(at: Ints, labels: Ints, columns: Mapping[str, NDArray[np.generic]]) -> Reading:
    return Reading(at, labels, {name: column.astype(np.float32) for name, column in columns.items()})
