"""Failures around a search, and what becomes of it: engine, scorer, policy, verifier."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import pytest

from fakes import FakePolicy, FakeScorer, FakeTask, letters
from ramify.search.protocols import EngineDead
from ramify.search.records import BudgetLimits, Continuation, Sampling, Score
from ramify.search.run import Search
from search_worlds import AB, check, replaced, world


@pytest.mark.anyio
async def test_a_dead_engine_ends_the_search_with_what_it_has():
    found = world(policy=FakePolicy(AB, die_after=5), algorithm="best_of_n", parallel=1)
    await found.run()
    assert (found.tree.status, found.tree.stop_reason) == ("engine_dead", "error")
    assert found.tree.error == "EngineDead: the fake engine was told to die"
    assert len(found.tree.completions) == 5
    assert found.tree.answer is not None
    check(found)


@pytest.mark.anyio
async def test_a_dead_scorer_is_a_dead_engine():
    class Dead(FakeScorer):
        async def score(self, sequences: Sequence[Sequence[int]]) -> list[Score]:
            raise EngineDead("the scorer is gone")

    found = world(AB)
    search = Search(found.tree, found.policy, Dead(lambda text: 0.5), found.task, clock=lambda: 0.0)
    await search.run()
    assert found.tree.status == "engine_dead"
    assert found.tree.usage.completion_tokens == found.policy.generated > 0


class Giving(FakeScorer):
    """A scorer that spoils its answer."""

    def __init__(self, scores: Sequence[float]) -> None:
        super().__init__(lambda text: 0.5)
        self.scores = scores

    async def score(self, sequences: Sequence[Sequence[int]]) -> list[Score]:
        return [Score(value, "fake") for value in self.scores]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([], "RuntimeError: the scorer gave 0 values for"),
        ([0.5] * 99, "RuntimeError: the scorer gave 99 values for"),
        ([math.nan] * 4, "RuntimeError: the scorer gave the value nan, which is outside [0, 1]"),
        ([1.5] * 4, "RuntimeError: the scorer gave the value 1.5"),
        ([-0.1] * 4, "RuntimeError: the scorer gave the value -0.1"),
        ([math.inf] * 4, "RuntimeError: the scorer gave the value inf"),
    ],
)
async def test_a_scorer_that_gives_the_wrong_values_is_an_error_and_never_a_0(scores: list[float], said: str):
    # the first batch is the four nodes of one path
    found = world(letters({"a": 1.0}, 3), width=1)
    await Search(found.tree, found.policy, Giving(scores), found.task, clock=lambda: 0.0).run()
    assert found.tree.status == "failed"
    assert found.tree.error is not None
    assert found.tree.error.startswith(said)
    assert len(found.tree.nodes) == 1


class Spoiling(FakePolicy):
    """A policy whose continuations are spoiled in one way."""

    how = ""

    async def sample(
        self, prefix: Sequence[int], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Continuation]:
        steps = await super().sample(prefix, sampling, seeds)
        if self.how == "too few":
            return steps[:-1]
        if self.how == "too many":
            return [*steps, steps[0]]
        if self.how == "too long":
            size = sampling.max_tokens + 1
            long = replaced(steps[0], token_ids=(97,) * size, logprobs=(0.0,) * size, ends=(1,) * size)
            return [long] * len(seeds)
        if self.how == "empty":
            return [replaced(steps[0], token_ids=(), logprobs=(), ends=(), text="")] * len(seeds)
        return [replaced(step, logprobs=step.logprobs[:-1]) for step in steps]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("too few", "3 continuations in place of 4"),
        ("too many", "5 continuations in place of 4"),
        ("too long", "a continuation of 65 tokens in place of 1 to 64"),
        ("empty", "a continuation of 0 tokens in place of 1 to 64"),
        ("no log-prob", "6 log-probs and 7 ends for 7 tokens"),
    ],
)
async def test_a_policy_that_gives_what_was_not_asked_for_fails_the_search(how: str, said: str):
    policy = Spoiling(AB)
    policy.how = how
    found = world(policy=policy, budget=BudgetLimits(tokens=1000))
    await found.run()
    assert found.tree.status == "failed"
    assert found.tree.error == f"RuntimeError: the policy gave {said}"
    assert all(node.in_flight == node.expanding == 0 for node in found.tree.nodes)
    assert found.tree.usage.completion_tokens > 0 or how == "empty"


@pytest.mark.anyio
async def test_a_request_dropped_by_the_engine_itself_is_an_error_and_no_cancellation():
    class Dropping(FakePolicy):
        async def sample(
            self, prefix: Sequence[int], sampling: Sampling, seeds: Sequence[int]
        ) -> list[Continuation]:
            raise asyncio.CancelledError

    found = world(policy=Dropping(AB))
    await found.run()
    assert found.tree.status == "failed"
    assert found.tree.error == "RuntimeError: the engine dropped a request that nobody had cancelled"


@pytest.mark.anyio
async def test_a_verifier_that_fails_is_counted_apart_and_its_answers_weigh_nothing():
    # `b…` cannot be graded; `a…` is right
    task = FakeTask(lambda text: text.startswith("a"), lambda text: text.startswith("b"))
    found = world(
        AB, task=task, algorithm="best_of_n", grader="verifier", budget=BudgetLimits(simulations=30)
    )
    await found.run()
    tree = found.tree
    ungraded = [node for node in tree.complete() if node.outcome is None]
    assert tree.usage.grading_failures == sum(node.multiplicity for node in ungraded) > 0
    assert all(tree.text(node).startswith("b") for node in ungraded)
    assert all(node.visits == 0 and node.outcome_source is None for node in ungraded)
    assert tree.answer is not None
    assert tree.answer.outcome == 1.0
    check(found)


@pytest.mark.anyio
async def test_any_other_error_of_a_verifier_fails_the_search():
    class Broken(FakeTask):
        async def final(self, text: str) -> str | None:
            raise OSError("no such file")

    found = world(AB, task=Broken(), algorithm="best_of_n", budget=BudgetLimits(simulations=3))
    await found.run()
    assert found.tree.status == "failed"
    assert found.tree.error == "OSError: no such file"
    assert found.tree.answer is not None, "what was drawn votes by its text"
    assert len(found.tree.completions) == 3
