"""The final answers of a tree's complete leaves, told apart by the task while the search grows.

A task may think about an answer for seconds, or for ever (a tower of powers for a computer algebra system), so nobody
waits for it beyond the search's own clocks: answers are grouped one by one, in the order in which they were drawn,
beside the search. Those that are not grouped when the search must answer vote by their text alone, and
`Tree.ungrouped` counts them. (2026-11-28: grouping all of them after the search made deadlines, cancels and drains up
to 20 s late.)
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

from ramify.search.protocols import GradingFailed, Task
from ramify.search.tree import Tree

PATIENCE = 20.0
"""Seconds that a search which nothing hurries waits for its answers to be grouped."""
LAST_CALL = 0.15
"""Seconds that a task has, for all that it is asked, once the search must answer."""
LONGEST_TEXT = 500
"""Characters of the text by which an ungrouped answer votes."""


class Grouping:
    """The final answers of one tree, as far as they are known."""

    def __init__(self, tree: Tree, task: Task) -> None:
        self.tree, self.task = tree, task
        self.finals: dict[int, str | None] = {}
        """By the id of the node that ends the answer; equal answers are equal strings, and `None` is no answer."""
        self.votes: defaultdict[str, float] = defaultdict(float)
        """By final answer: its draws so far, each counted by its leaf value under `orm_vote`. Texts without an answer
        have none."""
        self._grouped = 0
        """Completions whose answers are grouped."""
        self._ungrouped: set[int] = set()
        self._work: asyncio.Task[None] | None = None

    def go_on(self) -> None:
        """Group what has landed since, in the background, unless the task has failed."""
        if self._work is not None and (not self._work.done() or self._work.exception()):
            return
        if self._grouped < len(self.tree.completions):
            self._work = asyncio.create_task(self._group(), name=f"grouping-{self.tree.id}")

    async def caught_up(self, over: asyncio.Event) -> None:
        """Wait until all that has landed is grouped, as long as `in_time` says. Raises what the task raised."""
        self.go_on()
        if self._work is not None and await in_time(self._work, over, PATIENCE):
            self._work.result()

    def close(self) -> None:
        """Group no more: what is left votes by its text."""
        if self._work is not None and not self._work.cancel() and not self._work.cancelled():
            self._work.exception()  # retrieved, or asyncio warns; whoever waited was told
        for leaf in self.tree.complete():
            if leaf.id not in self.finals:
                self._alone(leaf.id)
        self.tree.ungrouped = len(self._ungrouped)

    async def _group(self) -> None:
        while self._grouped < len(self.tree.completions):
            node = self.tree.completions[self._grouped].node
            if node not in self.finals:
                try:
                    self.finals[node] = await self.task.final(self._text(node))
                except GradingFailed:
                    self._alone(node)
            self._grouped += 1
            self._vote(node)

    def _vote(self, node: int) -> None:
        final = self.finals[node]
        if final is not None:
            weighs = self.tree.params.answer == "orm_vote"
            self.votes[final] += (self.tree.leaf_value(self.tree.nodes[node]) or 0.0) if weighs else 1

    def _text(self, node: int) -> str:
        return self.tree.text(self.tree.nodes[node])

    def _alone(self, node: int) -> None:
        self._ungrouped.add(node)
        self.finals[node] = last_line(self._text(node))


async def finals(tree: Tree, task: Task) -> dict[int, str | None]:
    """The final answer of every complete leaf of an ended search, by node id."""
    grouping = Grouping(tree, task)
    try:
        await grouping.caught_up(asyncio.Event())
    finally:
        grouping.close()
    return grouping.finals


async def in_time(work: asyncio.Task[Any], over: asyncio.Event, seconds: float) -> bool:
    """Wait for `work`, at most `seconds`, and only until `over` is set. Returns whether it is done; it is never
    cancelled here."""
    must_end = asyncio.create_task(over.wait())
    try:
        await asyncio.wait((work, must_end), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        must_end.cancel()
    return work.done()


def last_line(text: str) -> str | None:
    """The last line of a text that is not blank, blanks collapsed; `None` for a blank text."""
    lines = [line for line in text.splitlines() if line.strip()]
    return " ".join(lines[-1].split())[:LONGEST_TEXT] if lines else None
