"""Tokens and nodes: set aside, spent, refunded, and held back for the last answer."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import FakePolicy, letters
from ramify.search.budget import Budget
from ramify.search.builder import TreeBuilder
from ramify.search.cutting import SampledAction
from ramify.search.plans import Plan
from ramify.search.records import Action, BudgetLimits, Sampling
from ramify.search.tree import Node
from search_worlds import (
    ONE_AT_A_TIME,
    TOKEN,
    check,
    grow,
    new_tree,
    ran,
    rule_for,
    sequence,
    variants,
    words,
)

ROOT = Node(id=0, parent=None, depth=0)


def budget(final: int = 0, **limits: int | float | None) -> Budget:
    return Budget(BudgetLimits(**limits), final=final, clock=lambda: 0.0)  # type: ignore[arg-type]


def test_tokens_set_aside_cannot_be_set_aside_twice_and_come_back_unspent():
    spent = budget(tokens=100)
    assert spent.reserve(60)
    assert not spent.reserve(41)
    assert spent.available == 40
    spent.settle(60, 25)
    assert (spent.tokens, spent.available) == (25, 75)


def test_the_final_answers_tokens_are_not_the_searchs_until_they_are_released():
    spent = budget(final=30, tokens=100)
    assert not spent.reserve(71)
    assert spent.reserve(70)
    spent.release_final()
    assert spent.available == 30


def test_without_a_token_limit_everything_can_be_set_aside():
    spent = budget(simulations=5)
    assert spent.available is None
    assert spent.reserve(10**9)


def test_a_limit_that_is_met_ends_the_search_and_says_which():
    assert budget(simulations=3).ended() is None
    spent = budget(simulations=3, nodes=10)
    spent.nodes = 10
    assert spent.ended() == "budget.nodes"
    spent.simulations = 3
    assert spent.ended() == "budget.simulations"
    timed = Budget(BudgetLimits(seconds=2.0), final=0, clock=sequence([10.0, 11.9, 12.0]))
    assert timed.ended() is None
    assert timed.ended() == "budget.seconds"


def test_the_fraction_spent_is_the_largest_over_the_limits_and_counts_no_reservation():
    spent = budget(simulations=10, tokens=100, nodes=50)
    spent.simulations, spent.nodes = 2, 20
    assert spent.fraction() == 0.4
    spent.reserve(90)
    assert spent.fraction() == 0.4
    spent.settle(90, 70)
    assert spent.fraction() == 0.7
    spent.settle(0, 70)
    assert spent.fraction() == 1.0


@pytest.mark.parametrize(("tokens", "draws"), [(64, 4), (63, 3), (16, 1), (15, None)])
def test_a_plan_too_dear_is_cut_to_the_draws_that_can_be_paid_for(tokens: int, draws: int | None):
    plan = Plan(1, (ROOT,), "step", 4, 16).within(tokens)
    assert (plan and plan.n) == draws


def test_a_plan_with_a_rollout_keeps_its_tokens_before_any_draw():
    plan = Plan(1, (ROOT,), "step", 4, 16, rollout_tokens=40)
    assert plan.cost == 104
    assert plan.within(72) == Plan(1, (ROOT,), "step", 2, 16, rollout_tokens=40)
    assert plan.within(55) is None


def test_enumerated_tokens_cost_one_and_are_not_cut():
    assert Plan(1, (ROOT,), "token", 8, 1).cost == 1
    assert Plan(1, (ROOT,), "token", 8, 1, rollout_tokens=9).within(9) is None


def test_a_search_that_completes_nothing_by_itself_has_the_tokens_to_complete_one_answer():
    # Every answer is 3 lines of 2 tokens and the end: 7 tokens, the cap. Of 20, 7 are held back, so a step tree may
    # spend 13: 4 + 4 draws of 2 at the root and at one child, 2 more at a third node; then the rollout.
    found = ran(
        algorithm="mcts",
        expand="step",
        action=Action(max_tokens=2),
        sampling=Sampling(max_tokens=7),
        budget=BudgetLimits(simulations=50, tokens=20),
        schedule="waves",
        parallel=1,
    )
    tree = found.tree
    assert tree.stop_reason == "budget.tokens"
    assert len(tree.completions) == 1
    assert tree.completions[0].simulation == 0
    assert tree.answer is not None
    assert tree.answer.text.count("\n") == 3
    assert tree.usage.completion_tokens <= 20


@pytest.mark.parametrize(("after_one", "after_two", "rest"), [(0.6, 0.7, 3), (0.7, 0.6, 5)])
def test_the_last_answer_goes_on_from_the_unfinished_state_of_the_highest_value(
    after_one: float, after_two: float, rest: int
):
    # Two simulations draw a line of 2 tokens each, the second below the first. A whole answer has 7 tokens.
    found = ran(
        value=lambda text: {1: after_one, 2: after_two}.get(text.count("\n"), 0.5),
        algorithm="mcts",
        expand="step",
        action=Action(max_tokens=2),
        width=1,
        sampling=Sampling(max_tokens=7),
        budget=BudgetLimits(simulations=2),
        parallel=1,
    )
    assert [completion.simulation for completion in found.tree.completions] == [0]
    assert found.tree.usage.completion_tokens == 4 + rest


@pytest.mark.parametrize(
    ("values", "given_up", "visits", "begins"),
    [
        ({"a": 0.05, "b": 0.3, "c": 0.1}, "", {}, "b"),
        ({"a": 0.05, "b": 0.3, "c": 0.1}, "b", {}, "c"),  # what the algorithm gave up is the last resort
        ({"a": 0.05, "b": 0.3, "c": 0.1}, "abc", {}, "b"),
        ({}, "", {"a": 1, "b": 2, "c": 1}, "b"),  # nothing is judged: the most visited
    ],
)
def test_where_the_last_answer_begins(
    values: dict[str, float], given_up: str, visits: dict[str, int], begins: str
):
    tree = new_tree(algorithm="mcts")
    builder = TreeBuilder(tree, Budget(tree.params.budget, final=0, clock=lambda: 0.0))
    for letter in "abc":
        node = grow(builder, tree.root, letter, value=values.get(letter))
        node.pruned, node.visits = letter in given_up, visits.get(letter, 0)
    assert builder.most_promising().text == begins


# Nodes


def test_nodes_set_aside_cannot_be_set_aside_twice_and_one_is_held_back_for_the_final_answer():
    spent = budget(nodes=10)
    assert spent.reserve(0, 6)
    assert not spent.reserve(0, 4)
    assert spent.reserve(0, 3)
    assert (spent.available_nodes, spent.ended()) == (0, "budget.nodes")
    spent.settle(0, 0, 6)
    assert (spent.available_nodes, spent.ended()) == (6, None)
    spent.release_final()
    assert spent.available_nodes == 7


@pytest.mark.parametrize(("nodes", "draws"), [(9, 4), (4, 3), (2, 1), (1, None)])
def test_a_plan_is_cut_to_the_draws_that_there_are_nodes_for(nodes: int, draws: int | None):
    # a node for each draw and one for the rollout
    plan = Plan(1, (ROOT,), "token", 4, 1, rollout_tokens=9).within(None, nodes)
    assert (plan and plan.n) == draws


def test_actions_joined_are_one_action_judged_as_the_last():
    first, last = (
        SampledAction((1, 2), (-0.1, -0.2), "ab", "r", None, 0.3),
        SampledAction((3,), (-0.4,), "c", "r", "eos", 0.9, 1.0),
    )
    assert SampledAction.joined([first, last]) == SampledAction(
        (1, 2, 3), (-0.1, -0.2, -0.4), "abc", "r", "eos", 0.9, 1.0
    )


def test_a_draw_of_more_steps_than_there_are_nodes_left_keeps_its_answer_in_its_last_node():
    # Every answer is 5 lines and the end, 6 nodes. One node of 4 is held back until an answer is complete.
    found = ran(letters({"a": 1.0}, 5), width=1, budget=BudgetLimits(nodes=4), **ONE_AT_A_TIME)
    tree = found.tree
    assert [node.text for node in tree.nodes[1:]] == ["a\n", "a\n", "a\n" * 3]
    assert tree.answer is not None
    assert tree.answer.text == "a\n" * 5
    assert tree.nodes[3].terminal == "eos"
    check(found)


def test_a_search_with_a_single_node_to_spend_still_answers():
    for params in variants():
        found = ran(rule_for(params), **params, budget=BudgetLimits(nodes=1))
        assert found.tree.stop_reason == "budget.nodes"
        assert len(found.tree.nodes) == 2
        assert found.tree.answer is not None
        check(found)


@pytest.mark.parametrize(
    "params",
    [
        {"algorithm": "mcts"},
        {"algorithm": "gumbel"},
        {"algorithm": "best_of_n"},
        {"expand": "step", "action": TOKEN, "width": 64, "parallel": 16},
        {"algorithm": "beam", "beam_width": 8},
    ],
    ids=lambda params: "-".join(map(str, params.values())),
)
def test_the_limit_on_nodes_is_a_limit(params: dict[str, Any]):
    # h02: mcts had 61 nodes of 50, and 193 of 100
    rule = words if params.get("action") is TOKEN else letters(dict.fromkeys("abcdefgh", 1 / 8), 6)
    tree = ran(rule, **params, budget=BudgetLimits(nodes=12, simulations=500)).tree
    assert len(tree.nodes) - 1 == 12
    assert tree.stop_reason == "budget.nodes"


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    params=st.sampled_from(variants()),
    limits=st.builds(
        BudgetLimits,
        simulations=st.integers(1, 40),
        tokens=st.none() | st.integers(8, 60),
        nodes=st.none() | st.integers(1, 25),
    ),
    parallel=st.sampled_from([1, 16]),
    wide=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_no_budget_is_ever_exceeded(
    params: dict[str, Any], limits: BudgetLimits, parallel: int, wide: bool, seed: int
):
    if wide and params["algorithm"] not in ("best_of_n", "self_consistency", "particle"):
        params = {**params, "width": 64} if params["algorithm"] != "gumbel" else {**params, "considered": 64}
    policy = FakePolicy(rule_for(params), jitter=random.Random(seed))
    found = ran(
        policy=policy, **params, parallel=parallel, seed=seed, budget=limits, sampling=Sampling(max_tokens=8)
    )
    usage = found.tree.usage
    assert usage.simulations <= limits.simulations
    assert limits.tokens is None or usage.completion_tokens <= limits.tokens
    assert limits.nodes is None or len(found.tree.nodes) - 1 <= limits.nodes
    assert found.tree.answer is not None
    check(found)
