"""AB-MCTS-A of TreeQuest: a node is a whole answer, its score the value model's.

The algorithm goes wider (another answer) or deeper (a better one made of this). An answer is made of another by keeping
its beginning and writing the rest again: one step more is kept with every level, so that a deep node is sure of much.
The library asks which nodes to make children of (`ask_batch`) and is told the children (`tell`), several at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from research.duels.arms import Budget
from research.duels.engine import DELIMITER, Draft, Engine

ACTION = "write"


def ab_mcts_a() -> Any:
    """Make the algorithm with the library's defaults."""
    from treequest import ABMCTSA

    return ABMCTSA()


@dataclass(frozen=True, slots=True)
class Node:
    """A whole answer."""

    draft: Draft
    value: float
    kept: int
    """Steps that it has from its parent."""

    @property
    def beginning(self) -> str:
        """The steps that a child keeps of it: one more than it kept itself, but never the last."""
        steps = self.draft.text.splitlines(keepends=True)
        return "".join(steps[: min(self.kept + 1, len(steps) - 1)])


@dataclass(frozen=True, slots=True)
class TreeQuest:
    """An algorithm of TreeQuest, asked for up to `batch` nodes at a time until the budget is spent."""

    name: str
    make: Callable[[], Any]
    batch: int = 8

    async def answer(self, engine: Engine, budget: Budget) -> str | None:
        algorithm, began, made = self.make(), time.monotonic(), 0
        state = algorithm.init_tree()
        while size := min(self.batch, budget.room(engine.tokens, made, time.monotonic() - began)):
            state, trials = algorithm.ask_batch(state, size, [ACTION])
            nodes = await _children(engine, [trial.parent_state for trial in trials])
            for trial, node in zip(trials, nodes, strict=True):
                state = algorithm.tell(state, trial.trial_id, (node, node.value))
            made += size
        made_nodes = [node for node, _ in algorithm.get_state_score_pairs(state)]
        best = max(made_nodes, key=lambda node: (node.draft.finished, node.value), default=None)
        return best.draft.text if best else None


async def _children(engine: Engine, parents: Sequence[Node | None]) -> list[Node]:
    """Write a child of each node; `None` stands for the root."""
    kept = [parent.beginning if parent else "" for parent in parents]
    drafts = await engine.answers(kept)
    return [
        Node(draft, value, text.count(DELIMITER))
        for draft, value, text in zip(drafts, await engine.values(drafts), kept, strict=True)
    ]
