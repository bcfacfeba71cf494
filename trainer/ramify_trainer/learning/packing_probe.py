"""Try, before a round is trained, whether a network reads a packed tree as it reads the tree's paths.

A mask says which earlier tokens a token attends to. It replaces a sliding window or chunks, and a recurrence ignores
it, so such a network's numbers on packed trees are wrong, and nothing fails. The probe is as long as the round's
longest path, since a window shows only beyond its length. It is one fork: a short branch that is packed before the
long path, and must not be noticed by it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ramify.search.params import search_params
from ramify.search.records import Sampling
from ramify.search.tree import Node, Tree
from ramify_trainer.learning.batches import collate
from ramify_trainer.learning.labels import LabelledTree
from ramify_trainer.learning.networks import Reader
from ramify_trainer.learning.packing import Piece, pack
from ramify_trainer.learning.targets import PolicyTargets

__all__ = ["longest_path", "policy_fault", "value_fault"]

TOLERANCE = 0.01
"""Largest difference that is taken for rounding, of which float32 has much less: of a log-probability, or of the
value's logit in units of its standard deviation over the probe."""
BRANCH = 16
"""Tokens of the short branch, at most."""
STEPS = 8
"""Nodes that the long path is divided into: a value is read at the end of each."""


def longest_path(trees: Sequence[LabelledTree]) -> tuple[int, ...]:
    """Return the tokens of the longest path of any tree, its prompt included; none if there is no tree."""
    ends = [
        (len(t.tree.prompt_tokens) + n.length, i, n.id) for i, t in enumerate(trees) for n in t.tree.nodes
    ]
    if not ends:
        return ()
    _, i, node = max(ends)
    return tuple(trees[i].tree.sequence(trees[i].tree.nodes[node]))


def policy_fault(policy: Reader, path: Sequence[int]) -> str | None:
    """Return why trees with a path of these tokens must not be packed for this policy; None if they may be."""
    tree = _fork(path)
    targets = PolicyTargets({node.id: 1.0 for node in tree.nodes[1:]})
    found = _compared(policy, "policy", lambda limit: pack(tree, limit, policy=targets))
    if isinstance(found, str):
        return found
    worst = float(np.abs(found[0] - found[1]).max(initial=0))
    return None if worst <= TOLERANCE else f"a log-probability differs by {worst:.2g}"


def value_fault(value: Reader, path: Sequence[int]) -> str | None:
    """Return the same for a value model. One that gives every text the same value cannot be told, and must not be
    packed."""
    tree = _fork(path)
    targets = {node.id: (0.0, 1.0) for node in tree.nodes}
    found = _compared(value, "value", lambda limit: pack(tree, limit, value=targets))
    if isinstance(found, str):
        return found
    worst, spread = float(np.abs(found[0] - found[1]).max()), float(found[1].std())
    if not spread:
        return "every text has the same value, so that a difference would not show"
    return (
        None
        if worst <= TOLERANCE * spread
        else f"a logit differs by {worst / spread:.2g} standard deviations"
    )


def _fork(path: Sequence[int]) -> Tree:
    """Return a tree with a quarter of the path as the prompt; below it a short branch of the path's last tokens, then
    the path's rest."""
    start = max(1, len(path) // 4)
    tree = Tree(prompt_tokens=tuple(path[:start]), params=search_params("mcts"), sampling=Sampling(), seed=0)
    _grow(tree, tree.root, path[-BRANCH:])
    node, step = tree.root, max(1, -(-(len(path) - start) // STEPS))
    for at in range(start, len(path), step):
        node = _grow(tree, node, path[at : at + step])
    return tree


def _grow(tree: Tree, parent: Node, tokens: Sequence[int]) -> Node:
    length = parent.length + len(tokens)
    return tree.add(parent, tokens=tuple(tokens), logprobs=(0.0,) * len(tokens), length=length)


@torch.no_grad()
def _compared(
    reader: Reader, output: str, pieces: Callable[[int | None], list[Piece]]
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | str:
    """Return the same numbers of the packed tree and of its paths, in float32 whatever the training's precision; or why
    packing fails."""
    apart = _numbers(reader, output, pieces(None), packed=False)
    try:
        return _numbers(reader, output, pieces(sys.maxsize), packed=True), apart
    except Exception as error:  # what a model makes of a mask that it does not expect is its own affair
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _numbers(reader: Reader, output: str, pieces: Sequence[Piece], packed: bool) -> NDArray[np.float32]:
    batch = collate(pieces, packed).to(reader.accelerator.device)
    outputs = reader.wrapped(batch.tokens, batch.positions, batch.mask, batch.readings)
    numbers: NDArray[np.float32] = outputs[output].float().cpu().numpy()
    return numbers
