"""Whatever a task does while it tells answers apart, the search ends by its own clocks and says what it left."""

from __future__ import annotations

import asyncio
import time

import pytest

from fakes import FakePolicy, FakeScorer, FakeTask, letters
from ramify.search.codec import tree_from_dict, tree_to_dict
from ramify.search.grouping import LAST_CALL
from ramify.search.protocols import GradingFailed
from ramify.search.records import BudgetLimits, StopReason
from ramify.search.run import Progress, Search
from search_worlds import new_tree

pytestmark = pytest.mark.anyio
AB = letters({"a": 0.5, "b": 0.5}, 1)


class HangsOver(FakeTask):
    """Never says what the final answer of some texts is."""

    def __init__(self, *letters: str) -> None:
        super().__init__()
        self.letters = letters
        self.asked: list[str] = []

    async def final(self, text: str) -> str | None:
        self.asked.append(text)
        if text.startswith(self.letters):
            await asyncio.Event().wait()
        return await super().final(text)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def search(task: FakeTask, **params: object) -> Search:
    tree = new_tree(algorithm="best_of_n", answer="majority", **params)
    return Search(tree, FakePolicy(AB), FakeScorer(lambda text: 0.5), task, clock=time.monotonic)


async def ended(found: Search, within: float = LAST_CALL + 2) -> None:
    await asyncio.wait_for(found.run(), within)


@pytest.mark.parametrize(
    ("status", "reason"), [("deadline", "deadline"), ("cancelled", "client"), ("drained", "drain")]
)
async def test_a_search_that_is_told_to_end_does_not_wait_for_a_task_that_hangs(
    status: str, reason: StopReason
) -> None:
    found = search(HangsOver("a", "b"), budget=BudgetLimits(simulations=20))
    loop = asyncio.get_running_loop()

    def tell(progress: Progress) -> None:
        if progress.simulations == 20:  # the last: it is complete before the loop comes to this call
            loop.call_soon(found.stop, status, reason)

    found.observe = tell
    await ended(found)
    # the search was complete when it was told: only its answers were not yet told apart
    assert (found.tree.status, found.tree.stop_reason) == ("complete", "budget.simulations")
    assert found.tree.ungrouped == len(found.tree.complete()) == 2
    assert {answer.final for answer in found.tree.candidates} == {"a", "b"}


async def test_seconds_bound_the_grouping_too() -> None:
    found = search(HangsOver("a", "b"), budget=BudgetLimits(simulations=20, seconds=0.1))
    await ended(found)
    assert found.tree.ungrouped == 2
    assert found.tree.answer is not None


async def test_a_search_that_stops_early_does_not_wait_for_a_task_that_hangs() -> None:
    found = search(HangsOver("a", "b"), early_stop="posterior", budget=BudgetLimits(simulations=10_000))
    asyncio.get_running_loop().call_later(0.1, found.stop, "deadline", "deadline")
    await ended(found)
    assert (found.tree.status, found.tree.stop_reason) == ("deadline", "deadline")
    assert found.tree.answer is not None


async def test_a_cancelled_search_leaves_no_task_behind() -> None:
    found = search(HangsOver("a", "b"), budget=BudgetLimits(simulations=20))
    before = asyncio.all_tasks()
    run = asyncio.create_task(found.run())
    await turns(200)
    assert len(asyncio.all_tasks() - before) > 1
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    await turns(2)
    assert asyncio.all_tasks() == before


async def test_answers_are_grouped_while_the_search_grows() -> None:
    found = search(task := HangsOver("nothing"), parallel=1, budget=BudgetLimits(simulations=200))
    known: list[int] = []
    found.observe = lambda progress: known.append(len(task.asked))
    await ended(found)
    assert known[-1] == 2, "both answers were told apart before the last one was drawn"
    assert sorted(task.asked) == ["a\n", "b\n"], "each text once"
    assert found.tree.ungrouped == 0


async def test_a_text_that_cannot_be_told_apart_votes_by_its_last_line_and_the_tree_says_so() -> None:
    class Fails(FakeTask):
        async def final(self, text: str) -> str | None:
            if text.startswith("a"):
                raise GradingFailed("the worker died")
            return "B"

    found = search(Fails(), budget=BudgetLimits(simulations=20))
    await ended(found)
    assert {answer.final for answer in found.tree.candidates} == {"a", "B"}
    assert found.tree.ungrouped == 1
    document = tree_to_dict(found.tree)
    assert document["ungrouped"] == 1
    assert tree_from_dict(document) == found.tree


async def test_a_tree_whose_answers_are_all_grouped_says_nothing_of_it() -> None:
    found = search(FakeTask(), budget=BudgetLimits(simulations=20))
    await ended(found)
    assert "ungrouped" not in tree_to_dict(found.tree)
