"""How searches end: done, stopped, cancelled, out of time, dead engines, bad judges."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

import pytest

from fakes import FakePolicy, FakeScorer, FakeTask
from ramify.search.records import BudgetLimits, Continuation, Sampling, Status, StopReason
from ramify.search.run import Progress, Search
from search_worlds import AB, World, check, new_tree, world


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    for _ in range(10**6):
        if condition():
            return
        await asyncio.sleep(0)
    raise TimeoutError


def gated(**params: object) -> tuple[World, asyncio.Event]:
    """A world whose engine ends no request before the gate is opened."""
    gate = asyncio.Event()
    return world(policy=FakePolicy(AB, gate=gate), **params), gate


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("status", "reason"),
    [("cancelled", "client"), ("cancelled", "disconnect"), ("deadline", "deadline"), ("drained", "drain")],
)
async def test_a_search_can_be_stopped_from_outside_and_gives_its_best_answer_so_far(
    status: Status, reason: StopReason
):
    found = world(AB, algorithm="best_of_n", budget=BudgetLimits(simulations=100_000))
    running = asyncio.create_task(found.run())
    await until(lambda: len(found.seen) >= 5)
    found.search.stop(status, reason)
    await asyncio.wait_for(running, 1)
    assert (found.tree.status, found.tree.stop_reason) == (status, reason)
    assert found.tree.answer is not None
    check(found)


@pytest.mark.anyio
async def test_the_first_reason_to_stop_is_the_one_recorded():
    found, _ = gated()
    running = asyncio.create_task(found.run())
    await turns(3)
    found.search.stop("deadline", "deadline")
    found.search.stop("cancelled", "client")
    await running
    assert (found.tree.status, found.tree.stop_reason) == ("deadline", "deadline")


@pytest.mark.anyio
async def test_a_search_stopped_before_it_began_sends_nothing():
    found = world(AB)
    found.search.stop("drained", "drain")
    await found.run()
    assert found.tree.status == "drained"
    assert not found.policy.requests
    assert found.tree.answer is None


@pytest.mark.anyio
async def test_stopping_frees_the_engines_work_and_counts_what_it_had_written():
    found, _ = gated(algorithm="best_of_n", parallel=4)
    running = asyncio.create_task(found.run())
    await turns(5)
    assert found.policy.running == 4
    found.search.stop("cancelled", "client")
    await running
    assert (found.policy.running, found.policy.aborted) == (0, 4)
    assert found.tree.usage.completion_tokens == 4  # the fake wrote one token of each before it let go
    check(found)


@pytest.mark.anyio
async def test_cancelling_the_task_frees_the_engine_closes_the_tree_and_goes_on():
    found, _ = gated(algorithm="best_of_n", parallel=4)
    running = asyncio.create_task(found.run())
    await turns(5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (found.tree.status, found.tree.stop_reason) == ("cancelled", "client")
    assert (found.policy.running, found.policy.aborted) == (0, 4)
    check(found)


@pytest.mark.anyio
async def test_a_second_cancellation_while_the_engine_lets_go_still_closes_the_tree():
    class Slow(FakePolicy):
        async def sample(
            self, prefix: Sequence[int], sampling: Sampling, seeds: Sequence[int]
        ) -> list[Continuation]:
            try:
                return await super().sample(prefix, sampling, seeds)
            except asyncio.CancelledError:
                await turns(20)
                raise

    found = world(policy=Slow(AB, gate=asyncio.Event()), algorithm="best_of_n", parallel=3)
    running = asyncio.create_task(found.run())
    await turns(5)
    running.cancel()
    await turns(3)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert found.tree.status == "cancelled"
    assert all(node.in_flight == node.expanding == 0 for node in found.tree.nodes)
    await turns(40)
    assert found.policy.running == 0


@pytest.mark.anyio
async def test_seconds_are_read_off_the_clock_that_was_given():
    times = iter(range(1000))
    found = world(
        AB,
        algorithm="best_of_n",
        budget=BudgetLimits(simulations=1000, seconds=60),
        clock=lambda: next(times),
    )
    await found.run()
    assert found.tree.stop_reason == "budget.seconds"
    assert 0 < found.tree.usage.simulations < 1000


@pytest.mark.anyio
async def test_a_node_limit_lets_no_further_simulation_begin():
    found = world(AB, algorithm="mcts", parallel=1, budget=BudgetLimits(simulations=1000, nodes=9))
    await found.run()
    assert found.tree.stop_reason == "budget.nodes"
    last = max(node.simulation for node in found.tree.nodes)
    assert sum(node.simulation < last for node in found.tree.nodes[1:]) < 9 == len(found.tree.nodes) - 1
    check(found)


@pytest.mark.anyio
async def test_a_search_without_a_complete_answer_writes_its_best_path_to_the_end():
    # two simulations of steps: the root's best child by value is expanded; its best child is written on
    found = world(
        AB, lambda text: 0.9 if text.endswith("b\n") else 0.2, expand="step", select="puct", parallel=1, width=8,
        budget=BudgetLimits(simulations=2),
    )  # fmt: skip
    await found.run()
    tree = found.tree
    (completion,) = tree.completions
    assert completion.simulation == 0
    assert tree.text(tree.nodes[completion.node]).startswith("b\nb\n")
    assert tree.stop_reason == "budget.simulations"
    assert tree.usage.simulations == 2
    check(found)


@pytest.mark.anyio
async def test_a_search_stopped_during_its_last_completion_ends_without_it():
    found, gate = gated(expand="step", budget=BudgetLimits(simulations=1))
    running = asyncio.create_task(found.run())
    await turns(3)
    gate.set()
    await until(lambda: found.seen)
    gate.clear()
    await turns(3)
    assert found.policy.running == 1
    found.search.stop("deadline", "deadline")
    await running
    assert found.policy.running == 0
    assert (found.tree.status, found.tree.completions, found.tree.answer) == ("deadline", [], None)
    check(found)


@pytest.mark.anyio
async def test_where_every_answer_is_cut_the_best_cut_text_is_given():
    found = world(AB, sampling=Sampling(max_tokens=3), budget=BudgetLimits(simulations=5))
    await found.run()
    assert not found.tree.completions
    assert found.tree.answer is not None
    assert (found.tree.answer.final, found.tree.answer.votes) == (None, 0.0)


@pytest.mark.anyio
async def test_one_searchs_failure_leaves_the_others_alone():
    policy, scorer = FakePolicy(AB, jitter=random.Random(1)), FakeScorer(lambda text: 0.5)

    def search(seed: int, task: FakeTask) -> Search:
        return Search(new_tree(seed=seed, algorithm="best_of_n"), policy, scorer, task, clock=lambda: 0.0)

    class Broken(FakeTask):
        async def final(self, text: str) -> str | None:
            raise OSError("no such file")

    searches = [search(i, Broken() if i == 3 else FakeTask()) for i in range(8)]
    runs = [asyncio.create_task(s.run()) for s in searches]
    await turns(3)
    runs[5].cancel()
    await asyncio.gather(*runs, return_exceptions=True)
    ends = [s.tree.status for s in searches]
    assert ends == ["complete"] * 3 + ["failed", "complete", "cancelled"] + ["complete"] * 2
    assert policy.running == 0


@pytest.mark.anyio
async def test_progress_tells_the_best_judged_answer_so_far():
    found = world(AB, algorithm="best_of_n", parallel=1, budget=BudgetLimits(simulations=12))
    await found.run()
    assert [progress.simulations for progress in found.seen] == list(range(1, 13))
    best = 0.0
    for progress, completion in zip(found.seen, found.tree.completions, strict=True):
        best = max(best, found.tree.nodes[completion.node].value or 0.0)
        assert progress.best is not None
        assert progress.best.value == best
        assert progress.tokens == completion.tokens
    assert found.search.progress() == Progress(
        12, found.tree.usage.completion_tokens, 0.0, len(found.tree.nodes), found.seen[-1].best
    )


@pytest.mark.anyio
async def test_waves_land_in_the_order_of_selection_and_not_before_all_are_done():
    found = world(policy=FakePolicy(AB, jitter=random.Random(5)), algorithm="best_of_n", schedule="waves", parallel=6,
                  budget=BudgetLimits(simulations=18))  # fmt: skip
    await found.run()
    assert [completion.simulation for completion in found.tree.completions] == list(range(1, 19))


@pytest.mark.anyio
async def test_the_continuous_schedule_has_no_barrier():
    class Slow(FakePolicy):
        """The very first request takes long."""

        async def _take_time(self) -> None:
            await turns(200 if len(self.requests) == 1 else 1)

    found = world(policy=Slow(AB), algorithm="best_of_n", parallel=2, budget=BudgetLimits(simulations=12))
    await found.run()
    assert found.tree.completions[-1].simulation == 1
