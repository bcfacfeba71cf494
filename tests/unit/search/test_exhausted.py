"""A search that only draws what it has ends: the rule by hand, then in whole searches."""

from __future__ import annotations

import math
from typing import Any

import pytest

from fakes import FakePolicy, letters
from ramify.search.budget import Budget
from ramify.search.growth import LEAST_STALE, Growth
from ramify.search.plans import Drawn, Grown, Plan
from ramify.search.records import Limits, Sampling, Step
from search_worlds import ONE_AT_A_TIME, check, new_tree, ran, replaced


class Sure(FakePolicy):
    """Says the same every time, and that it was one of many things that it might have said."""

    def _one(self, *args: Any) -> Step:
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
    found = ran(policy=Sure(SURE), **params, budget=Limits(tokens=100_000), **ONE_AT_A_TIME)
    assert (found.tree.status, found.tree.stop_reason) == ("complete", "exhausted")
    assert len(found.policy.requests) <= 2 * LEAST_STALE
    check(found)


def test_a_search_that_finds_something_new_now_and_then_goes_on() -> None:
    # one answer in ten is not "a": of 200 draws some twenty letters are new, none of them 32 draws apart
    rest = dict.fromkeys("bcdefghijklmnopqrstuvwxyz", 0.1 / 25)
    found = ran(letters({"a": 0.9, **rest}, 1), algorithm="best_of_n", budget=Limits(simulations=60), seed=3)
    assert found.tree.stop_reason == "budget.simulations"


def growing() -> Growth:
    tree = new_tree(algorithm="best_of_n")
    return Growth(tree, Budget(tree.params.budget, final=0, clock=lambda: 0.0))


def draw(growth: Growth, text: str, tokens: int) -> None:
    """One answer drawn from the prompt, at a cost of `tokens`."""
    growth.budget.settle(0, tokens)
    action = Grown(tuple(map(ord, text)), (-1.0,) * len(text), text, "eos", "fake", 0.5)
    growth.merge(Plan(1, (growth.tree.root,), "path", 1, 100), Drawn([[action]]))


def test_32_expansions_in_a_row_must_bring_nothing() -> None:
    growth = growing()
    for _ in range(LEAST_STALE):
        draw(growth, "a", 10)
        assert not growth.exhausted
    draw(growth, "a", 10)
    assert growth.exhausted
    draw(growth, "b", 10)
    assert not growth.exhausted


def test_the_dearer_a_tree_the_more_must_be_spent_in_vain() -> None:
    growth = growing()
    draw(growth, "a", 1000)
    for _ in range(99):
        draw(growth, "a", 10)
    assert not growth.exhausted
    draw(growth, "a", 10)
    assert growth.exhausted


def test_going_back_to_a_finished_answer_draws_nothing_and_exhausts_nothing() -> None:
    growth = growing()
    draw(growth, "a", 10)
    leaf = growth.tree.nodes[1]
    for _ in range(100):
        growth.merge(Plan(1, (growth.tree.root, leaf), "revisit", 0, 0), Drawn([]))
    assert not growth.exhausted


def test_an_exhausted_search_gives_its_answer() -> None:
    tree = ran(
        SURE, algorithm="self_consistency", budget=Limits(tokens=10_000), sampling=Sampling(max_tokens=8)
    ).tree
    assert tree.answer is not None
    assert tree.answer.final == "aa"
    assert tree.usage.completion_tokens < 300
