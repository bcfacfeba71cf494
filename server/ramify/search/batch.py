"""Several searches on one budget: each simulation goes to the search that is expected to gain most by it.

Each search keeps its own tree, algorithm and limits; it is run like a single one, and ends, is stopped and is logged by
itself. They share two things: a purse of tokens, and places in flight. Whenever one of them has landed something or has
ended, the free places are dealt out, one plan at a time, to the search with the highest rate (`allocation`) among those
that can send one. The tokens of one answer are held back for each search until it has one, so no prompt stays without.

A search that is one of a batch ends, beside the usual reasons, `early` once another answer would bring it less than
`least_gain`, and with `budget.shared` once the purse is empty and nothing is in flight that might refund it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ramify.search.allocation import LEAST_GAIN, Standing
from ramify.search.budget import Purse
from ramify.search.params import ParamError
from ramify.search.records import SearchParams, StopReason
from ramify.search.run import Search

PARALLEL = 64
"""Simulations of one batch that are in flight at once, if nobody says."""


def check_turns(params: SearchParams) -> None:
    """Raise `ParamError` for a search that can be none of a batch."""
    if params.schedule == "waves":
        raise ParamError("schedule", "must be 'continuous' in a batch, whose searches take turns")


class Batch:
    """The turns of searches that share a budget. All of them run on one event loop, and share nothing else.

    tokens: the most that all of them may generate; `None` leaves that to their own limits. parallel: simulations in
    flight, of all searches together; each also keeps to its own `parallel`. Nothing is sent until every search that has
    joined is running, so that the first to run takes no other's place.
    """

    def __init__(
        self, tokens: int | None, *, parallel: int = PARALLEL, least_gain: float = LEAST_GAIN
    ) -> None:
        self.purse = None if tokens is None else Purse(tokens)
        self.parallel, self.least_gain = parallel, least_gain
        self._absent: set[Search] = set()
        """Searches that have joined and do not run yet."""
        self._present: dict[Search, Standing] = {}
        """Those that run."""
        self._stuck: dict[Search, StopReason] = {}
        """Those of them that cannot, or should not, send anything until they have landed something more, and why."""

    # -- the searches' side ---------------------------------------------------------------------------------------

    def join(self, search: Search) -> None:
        """Take a new search in; it must then be run. Raises `ParamError` as `check_turns` does."""
        check_turns(search.tree.params)
        self._absent.add(search)

    def turn(self, search: Search) -> StopReason | None:
        """Note how a search stands that has started or landed something, and deal. Returns why it will have no more
        turns; `None` if it may."""
        self._absent.discard(search)
        self._look_at(search)
        self._deal()
        return self._stuck.get(search)

    def leave(self, search: Search) -> None:
        """Let go of a search that has ended, and deal what it leaves."""
        self._absent.discard(search)
        self._present.pop(search, None)
        self._stuck.pop(search, None)
        search.budget.release_final()
        self._deal()

    # -- dealing -------------------------------------------------------------------------------------------------

    def _deal(self) -> None:
        """Give the free places away, and wake those for whom none will come."""
        if self._absent:
            return
        free = self.parallel - sum(search.in_flight for search in self._present)
        while free > 0 and (search := self._next()) is not None:
            reason = search.send()
            if reason is None:
                free -= 1
                self._look_at(search)
            elif reason == "budget.shared" and free < self.parallel:
                return  # what is in flight may refund enough
            else:
                self._stuck[search] = reason
        for search in self._stuck:
            if not search.in_flight:
                search.wake()

    def _next(self) -> Search | None:
        """The search of the highest rate among those that may send a plan; those that have had none come first."""
        able = [
            (not standing.tokens, standing.rate, search)
            for search, standing in self._present.items()
            if search not in self._stuck and search.has_place
        ]
        return max(able, key=lambda one: one[:2])[2] if able else None

    def _look_at(self, search: Search) -> None:
        length = search.builder.mean_length or self._usual_length(search)
        tokens = search.budget.tokens + search.in_flight * length
        standing = self._present[search] = Standing(search.probability_right, tokens, length)
        if standing.gain < self.least_gain:
            self._stuck[search] = "early"
        else:
            self._stuck.pop(search, None)

    def _usual_length(self, search: Search) -> float:
        """The mean length of the others' answers, for a search that has none; before any, the most that it can be."""
        known = [length for other in self._present if (length := other.builder.mean_length)]
        return sum(known) / len(known) if known else float(search.tree.sampling.max_tokens)


async def run_all(searches: Sequence[Search]) -> None:
    """Run the searches of a batch to their ends. Cancelled, it cancels all of them."""
    async with asyncio.TaskGroup() as group:
        for search in searches:
            group.create_task(search.run())
