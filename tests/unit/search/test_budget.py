"""The token budget: set aside, spent, refunded, and held back for the last answer."""

from __future__ import annotations

import pytest

from ramify.search.budget import Budget
from ramify.search.plans import Plan
from ramify.search.records import Action, Limits, Sampling
from ramify.search.tree import Node
from search_worlds import ran, sequence

ROOT = Node(id=0, parent=None, depth=0)


def budget(final: int = 0, **limits: int | float | None) -> Budget:
    return Budget(Limits(**limits), final=final, clock=lambda: 0.0)  # type: ignore[arg-type]


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
    timed = Budget(Limits(seconds=2.0), final=0, clock=sequence([10.0, 11.9, 12.0]))
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
        budget=Limits(simulations=50, tokens=20),
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
