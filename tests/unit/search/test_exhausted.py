"""A search that only draws what it has ends: the rule by hand, then in whole searches."""

from __future__ import annotations

import math
from typing import Any

import pytest

from fakes import FakePolicy, letters
from ramify.search.budget import Budget
from ramify.search.builder import RARE, TreeBuilder
from ramify.search.cutting import SampledAction
from ramify.search.plans import Plan, PlanResult
from ramify.search.records import BudgetLimits, Continuation, Sampling
from ramify.search.tree import Node
from search_worlds import ONE_AT_A_TIME, check, new_tree, ran, replaced


class Sure(FakePolicy):
    """Says the same every time, and that it was one of many things that it might have said."""

    def _one(self, *args: Any) -> Continuation:
        step = super()._one(*args)
        return replaced(step, logprobs=(math.log(0.1),) * len(step.token_ids))


SURE = letters({"a": 1.0}, 2)
DRAWING: list[dict[str, Any]] = [
    {"algorithm": "best_of_n"},
    {"algorithm": "self_consistency"},
    {"algorithm": "mcts", "width": 1},
    {"algorithm": "mcts", "select": "puct", "width": 1},
    {"algorithm": "mcts", "expand": "step", "widen": True, "width": 1},
    {"algorithm": "gumbel", "considered": 1},
]


@pytest.mark.parametrize("params", DRAWING, ids=lambda params: "-".join(map(str, params.values())))
def test_a_search_that_only_draws_what_it_has_is_exhausted(params: dict[str, Any]) -> None:
    found = ran(policy=Sure(SURE), **params, budget=BudgetLimits(tokens=100_000), **ONE_AT_A_TIME)
    assert (found.tree.status, found.tree.stop_reason) == ("complete", "exhausted")
    assert len(found.policy.requests) <= 2 * RARE
    check(found)


def test_a_search_that_finds_something_new_now_and_then_goes_on() -> None:
    # one answer in ten is not "a": of 200 draws some twenty letters are new, none of them 32 draws apart
    rest = dict.fromkeys("bcdefghijklmnopqrstuvwxyz", 0.1 / 25)
    found = ran(
        letters({"a": 0.9, **rest}, 1), algorithm="best_of_n", budget=BudgetLimits(simulations=60), seed=3
    )
    assert found.tree.stop_reason == "budget.simulations"


def new_builder() -> TreeBuilder:
    tree = new_tree(algorithm="best_of_n")
    return TreeBuilder(tree, Budget(tree.params.budget, final=0, clock=lambda: 0.0))


def draw(builder: TreeBuilder, text: str) -> None:
    """One answer drawn from the prompt."""
    plan = Plan(1, (builder.tree.root,), "path", 1, 100)
    builder.begin(plan)
    builder.end(plan)
    action = SampledAction(tuple(map(ord, text)), (-1.0,) * len(text), text, "fake", "eos", 0.5)
    builder.merge(plan, PlanResult([[action]]))


def visit(builder: TreeBuilder, node: Node) -> None:
    plan = Plan(1, (builder.tree.root, node), "revisit", 0, 0)
    builder.begin(plan)
    builder.end(plan)


def test_32_draws_in_a_row_must_bring_nothing() -> None:
    builder = new_builder()
    for _ in range(RARE):
        draw(builder, "a")
        assert not builder.exhausted
    draw(builder, "a")
    assert builder.exhausted
    draw(builder, "b")
    assert not builder.exhausted


def test_the_larger_a_search_the_more_must_come_to_nothing() -> None:
    # after 100 answers, all new: at the 200th draw the later half has brought none, at the 191st nine in 95, at the
    # 194th three in 97, which are fewer than one in 32
    builder = new_builder()
    for i in range(100):
        draw(builder, f"answer {i}")
    ends = 0
    while not builder.exhausted:
        draw(builder, "answer 0")
        ends += 1
    assert ends == 94


def test_a_search_that_finds_one_new_answer_in_sixteen_is_not_exhausted() -> None:
    builder = new_builder()
    for i in range(640):
        draw(builder, f"answer {i // 16}")
        assert not builder.exhausted


def test_going_back_to_a_finished_answer_brings_nothing_new() -> None:
    builder = new_builder()
    draw(builder, "a")
    for _ in range(RARE):
        visit(builder, builder.tree.nodes[1])
    assert builder.exhausted


def test_a_search_over_steps_ends_when_it_only_goes_back_to_its_answers() -> None:
    tree = ran(
        SURE, algorithm="mcts", select="puct", expand="step", width=1, budget=BudgetLimits(tokens=1000)
    ).tree
    assert tree.stop_reason == "exhausted"
    assert tree.usage.simulations < 100


def test_an_exhausted_search_gives_its_answer() -> None:
    tree = ran(
        SURE,
        algorithm="self_consistency",
        budget=BudgetLimits(tokens=10_000),
        sampling=Sampling(max_tokens=8),
    ).tree
    assert tree.answer is not None
    assert tree.answer.final == "aa"
    assert tree.usage.completion_tokens < 300


def test_a_search_that_commits_goes_on_from_the_next_step_when_one_is_exhausted() -> None:
    found = ran(
        policy=Sure(SURE), commit="step", width=1, budget=BudgetLimits(tokens=100_000), **ONE_AT_A_TIME
    )
    assert [found.tree.nodes[i].depth for i in found.tree.committed] == [1, 2, 3]
    assert found.tree.stop_reason == "exhausted"
    assert 2 * RARE < found.tree.usage.simulations <= 4 * RARE
    check(found)
