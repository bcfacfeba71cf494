"""AB-MCTS-A of TreeQuest: a node is a draft one step longer than its parent, its score the value model's.

The library asks which nodes to write on (`ask_batch`) and is told the results (`tell`), several at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from research.duels.arms import Budget
from research.duels.engine import Draft, Engine

ACTION = "step"
IDLE = 50
"""Batches without a new token after which a search is over: it only comes back to finished drafts."""


def ab_mcts_a() -> Any:
    """Make the algorithm with the library's defaults."""
    from treequest import ABMCTSA

    return ABMCTSA()


@dataclass(frozen=True, slots=True)
class TreeQuest:
    """An algorithm of TreeQuest, asked for `batch` nodes at a time until the budget is spent."""

    name: str
    make: Callable[[], Any]
    batch: int = 8

    async def answer(self, engine: Engine, budget: Budget) -> str | None:
        algorithm, began, idle = self.make(), time.monotonic(), 0
        state = algorithm.init_tree()
        while idle < IDLE and not budget.spent(engine.tokens, time.monotonic() - began):
            state, trials = algorithm.ask_batch(state, self.batch, [ACTION])
            before = engine.tokens
            results = await _written(engine, [trial.parent_state or (Draft(), 0.0) for trial in trials])
            for trial, result in zip(trials, results, strict=True):
                state = algorithm.tell(state, trial.trial_id, (result, result[1]))
            idle = 0 if engine.tokens > before else idle + 1
        return await _best(engine, [node for node, _ in algorithm.get_state_score_pairs(state)])


async def _written(engine: Engine, parents: Sequence[tuple[Draft, float]]) -> list[tuple[Draft, float]]:
    """Return a child of each node, with its value; that of a draft that cannot go on is the draft itself."""
    drafts = await engine.extended([draft for draft, _ in parents if draft.open])
    children = iter(zip(drafts, await engine.values(drafts), strict=True))
    return [next(children) if draft.open else (draft, value) for draft, value in parents]


async def _best(engine: Engine, nodes: Sequence[tuple[Draft, float]]) -> str | None:
    """Return the finished draft of the highest value; if there is none, the best one written to its end."""
    finished = [node for node in nodes if node[0].finished]
    draft, _ = max(finished or nodes or [(Draft(), 0.0)], key=lambda node: node[1])
    while draft.open:
        (draft,) = await engine.extended([draft])
    return draft.text if draft.finished else None
