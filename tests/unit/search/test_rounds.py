"""Searches that come to an end of their own are begun anew until the budget is spent."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from fakes import letters
from ramify.search.algorithms import ALGORITHMS
from ramify.search.records import Action, BudgetLimits, Sampling
from search_worlds import ONE_AT_A_TIME, STEP, World, check, first, listing, ran, texts, words

MANY = letters(dict.fromkeys("abcdefghijklmnop", 1 / 16), 4)
"""65,536 answers of nine tokens, the end among them."""
ROUNDS = [name for name, kind in ALGORITHMS.items() if kind.rounds]


def several(name: str, tokens: int = 2000, **params: Any) -> World:
    found = ran(MANY, algorithm=name, action=STEP, budget=BudgetLimits(tokens=tokens), **params)
    check(found)
    return found


def test_the_algorithms_that_come_to_an_end_of_their_own_are_these():
    assert ROUNDS == ["rap", "beam", "dvts", "dfs", "particle"]


@pytest.mark.parametrize("name", ROUNDS)
@pytest.mark.parametrize("schedule", ["waves", "continuous"])
def test_the_whole_budget_is_spent(name: str, schedule: str):
    # a round of beam takes some 200 tokens, one of dfs 40
    found = several(name, schedule=schedule)
    assert found.tree.stop_reason == "budget.tokens"
    assert found.tree.usage.completion_tokens > 2000 - 16 * 4 - 4  # less than the next plan could have cost


@pytest.mark.parametrize("name", ROUNDS)
def test_the_answer_is_chosen_over_all_rounds(name: str):
    few, many = several(name, 200), several(name, answer="orm_max")
    assert len(many.tree.candidates) > 2 * len(few.tree.candidates)
    best = max(node.value or 0.0 for node in many.tree.complete())
    assert many.tree.answer is not None
    assert many.tree.answer.value == best


@pytest.mark.parametrize("name", ROUNDS)
def test_a_search_with_nothing_more_to_find_is_exhausted_all_the_same(name: str):
    found = ran(
        letters({"a": 0.6, "b": 0.4}, 2), algorithm=name, action=STEP, budget=BudgetLimits(tokens=50_000)
    )
    assert (found.tree.status, found.tree.stop_reason) == ("complete", "exhausted")
    assert found.tree.answer is not None
    assert found.tree.usage.completion_tokens < 5000
    check(found)


@pytest.mark.parametrize("name", ROUNDS)
def test_no_round_begins_once_all_simulations_have_begun(name: str):
    found = ran(MANY, algorithm=name, action=STEP, budget=BudgetLimits(simulations=9))
    assert found.tree.usage.simulations <= 9
    assert found.tree.stop_reason == "budget.simulations"


@pytest.mark.parametrize("name", ROUNDS)
@pytest.mark.parametrize(
    "same",
    [{"sampling": Sampling(temperature=0)}, {"sampling": Sampling(top_k=1)}, {"action": Action("token", ())}],
    ids=["greedy", "top_k", "tokens"],
)
def test_no_round_begins_if_it_would_draw_the_same_again(name: str, same: dict[str, Any]):
    params = {"action": STEP, **same, **({} if name == "particle" else {"width": 1}), "beam_width": 1}
    if name in ("rap", "dfs"):
        params.pop("beam_width")
    found = ran(
        words if "sampling" not in same else MANY, algorithm=name, budget=BudgetLimits(tokens=2000), **params
    )
    assert found.tree.stop_reason == "exhausted"
    prompts = [text for text, _, _ in found.policy.requests]
    assert len(prompts) == len(set(prompts))


def beamed(simulations: int) -> World:
    # draw i takes the i-th letter: each round draws the same again, a 0.9, b 0.6, c 0.3, d 0.05
    return ran(policy=listing(3), value=first, algorithm="beam", beam_width=2, width=4, action=STEP,
               budget=BudgetLimits(simulations=simulations), **ONE_AT_A_TIME)  # fmt: skip


def test_a_round_is_the_algorithm_of_its_paper_whatever_was_expanded_before():
    # a round is the root, then two nodes at each of the three depths below, whose ends are drawn: 1 + 2 + 2 + 2
    one, two = beamed(7), beamed(14)
    asked = Counter(text for text, _, _ in two.policy.requests)
    assert set(asked.values()) == {2}
    assert asked == {text: 2 * n for text, n in Counter(text for text, _, _ in one.policy.requests).items()}
    assert [node.multiplicity for node in two.tree.nodes[1:]] == [
        2 * node.multiplicity for node in one.tree.nodes[1:]
    ]


def test_what_a_later_round_goes_on_from_is_not_given_up_any_more():
    assert texts([node for node in beamed(1).tree.nodes if node.pruned]) == ["c", "d"]
    found = several("beam", 4000)
    assert [node for node in found.tree.nodes if node.pruned]
    assert not [node for node in found.tree.nodes if node.pruned and node.children]
