"""Early stops: each rule, by hand and at its border."""

from __future__ import annotations

import asyncio

import pytest

from fakes import FakeTask, letters
from ramify.search import answers
from ramify.search.answers import leads
from ramify.search.budget import Budget
from ramify.search.builder import TreeBuilder
from ramify.search.grouping import Grouping
from ramify.search.records import BudgetLimits, Sampling
from ramify.search.tree import Completion, Tree
from search_worlds import new_tree, ran


def voted(early_stop: str, *draws: tuple[str, float], answer: str = "majority", **params: object) -> Tree:
    tree = new_tree(early_stop=early_stop, answer=answer, **params)
    for i, (text, value) in enumerate(draws):
        leaf = tree.add(tree.root, tokens=(i,), logprobs=(0.0,), text=text, terminal="eos", value=value)
        tree.completions.append(Completion(leaf.id, i + 1, i + 1))
    return tree


def settled(tree: Tree, left: int) -> bool:
    async def after_grouping() -> bool:
        grouping = Grouping(tree, FakeTask())
        await grouping.caught_up(asyncio.Event())
        builder = TreeBuilder(tree, Budget(tree.params.budget, final=0, clock=lambda: 0.0))
        return answers.settled(builder, grouping.votes, left)

    return asyncio.run(after_grouping())


THREE_TO_ONE = [("A", 0.5), ("A", 0.5), ("A", 0.5), ("B", 0.5)]


def test_unbeatable_needs_a_lead_greater_than_the_answers_that_may_come():
    # 3 to 1: one more answer can make it 3 to 2, two can draw level
    tree = voted("unbeatable", *THREE_TO_ONE)
    assert settled(tree, 1)
    assert not settled(tree, 2)


def test_unbeatable_counts_a_judged_vote_at_what_it_is_worth():
    # orm_vote: 1.5 to 0.5; the next answer may be worth up to 1: 1.5 to 1.5 is not behind
    tree = voted("unbeatable", *THREE_TO_ONE, answer="orm_vote")
    assert settled(tree, 0)
    assert not settled(tree, 1)


def test_texts_without_an_answer_do_not_stretch_the_lead():
    # 2 to 1 with five texts that hold none: the lead is 1 of 3 votes, not 8·(2/3 - 1/3)
    tree = voted("unbeatable", ("A", 0.5), ("A", 0.5), ("B", 0.5), *[("\n", 0.5)] * 5)
    assert settled(tree, 0)
    assert not settled(tree, 1)


def test_a_lone_answer_is_beatable_by_one_not_seen_yet():
    tree = voted("unbeatable", ("A", 0.5), ("A", 0.5))
    assert settled(tree, 1)
    assert not settled(tree, 2)
    assert not settled(voted("unbeatable"), 5)


@pytest.mark.parametrize(
    ("params", "answers"),
    [
        ({"algorithm": "best_of_n"}, 1),
        ({"algorithm": "mcts"}, 1),
        ({"algorithm": "mcts", "expand": "step"}, 4),
        ({"algorithm": "mcts", "expand": "step", "leaf": "mixed"}, 5),
        ({"algorithm": "gumbel"}, 1),
        ({"algorithm": "rap", "max_depth": 5}, 20),
        ({"algorithm": "beam"}, 4),
        ({"algorithm": "particle", "beam_width": 7}, 7),
    ],
)
def test_each_algorithm_knows_how_many_answers_a_simulation_may_bring(
    params: dict[str, object], answers: int
):
    assert (
        ran(**params, budget=BudgetLimits(simulations=1)).search.algorithm.answers_per_simulation == answers
    )


def test_an_unbeatable_lead_ends_a_vote_before_its_budget():
    # 12 draws; only `a` is ever drawn: unbeatable once it has more votes than draws are left, at the seventh
    found = ran(letters({"a": 1.0}, 1), algorithm="self_consistency", early_stop="unbeatable", parallel=1,
                budget=BudgetLimits(simulations=12))  # fmt: skip
    assert found.tree.usage.simulations == 7
    assert (found.tree.status, found.tree.stop_reason) == ("complete", "early")


def test_tokens_bound_the_answers_that_may_come_too():
    # an answer has 3 tokens, none has less than 1: after k answers 31 - 3k may come, fewer than k first at k = 8
    found = ran(letters({"a": 1.0}, 1), algorithm="self_consistency", early_stop="unbeatable", parallel=1,
                sampling=Sampling(max_tokens=3), budget=BudgetLimits(simulations=1000, tokens=31))  # fmt: skip
    assert found.tree.stop_reason == "early"
    assert found.tree.usage.simulations == 8


def test_posterior_stops_at_the_threshold():
    # Beta(4, 2): mean 2/3, variance 8/(36·7) = 0.031746: P(p > ½) ≈ Φ(0.9354) = 0.825 (exactly 26/32 = 0.8125)
    assert leads(3, 1) == pytest.approx(0.825, abs=1e-3)
    tree = voted("posterior", *THREE_TO_ONE, early_stop_threshold=0.8)
    assert settled(tree, 100)
    assert not settled(voted("posterior", *THREE_TO_ONE, early_stop_threshold=0.85), 100)


def test_the_posterior_of_equals_is_even_and_grows_with_the_lead():
    assert leads(0, 0) == leads(7, 7) == 0.5
    assert leads(2, 1) < leads(5, 1) < leads(50, 10)


def test_verified_stops_at_the_first_accepted_answer_only():
    found = ran(letters({"a": 0.2, "b": 0.8}, 1), algorithm="best_of_n", early_stop="verified", grader="verifier",
                parallel=1, budget=BudgetLimits(simulations=100))  # fmt: skip
    assert found.tree.stop_reason == "early"
    assert [found.tree.nodes[c.node].outcome for c in found.tree.completions].count(1.0) == 1
    assert found.tree.nodes[found.tree.completions[-1].node].outcome == 1.0
    assert found.tree.answer is not None
    assert found.tree.answer.outcome == 1.0


def test_votes_counted_draw_by_draw_are_the_votes_of_the_final_ranking():
    found = ran(letters({"a": 0.5, "b": 0.3, "c": 0.2}, 1), algorithm="mcts", early_stop="posterior",
                early_stop_threshold=1.0, answer="orm_vote", budget=BudgetLimits(simulations=40))  # fmt: skip
    votes = found.search._grouping.votes
    total = sum(votes.values())
    assert {a.final: pytest.approx(a.votes * total) for a in found.tree.candidates} == votes
