"""Draws given up once their tokens would bring more elsewhere: the hurdle by hand, and what becomes of them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest

from ramify.search.algorithms.mcts import Mcts
from ramify.search.budget import Budget
from ramify.search.builder import TreeBuilder
from ramify.search.records import BudgetLimits, Hurdle
from ramify.search.tree import Completion
from search_worlds import STEP, World, grow, new_tree, ran

WASTE, HOPE = "b\n", "a\n"
ABANDON: dict[str, Any] = {"algorithm": "mcts", "action": STEP, "abandon": True, "parallel": 1, "width": 1}


def test_the_hurdle_is_what_the_tokens_still_needed_would_bring_elsewhere() -> None:
    # a fresh answer is worth 0.2 and takes 20 tokens: 0.01 a token
    hurdle = Hurdle(rate=0.2 / 20, mean_length=20)
    assert [hurdle.at(length) for length in (0, 5, 19)] == pytest.approx([0.2, 0.15, 0.01])


def test_an_answer_as_long_as_they_mostly_are_is_never_given_up() -> None:
    assert Hurdle(rate=0.01, mean_length=20).at(20) == Hurdle(rate=0.01, mean_length=20).at(25) == 0


def two_answers(**params: Any) -> Mcts:
    """Two complete answers, of 4 and 6 tokens, worth 0 and 1; their first steps were valued 0.2 and 0.4."""
    tree = new_tree(**{**ABANDON, **params})
    builder = TreeBuilder(tree, Budget(tree.params.budget, final=0, clock=lambda: 0.0))
    for first, value, end in (("b\n", 0.2, 0.0), ("a\n", 0.4, 1.0)):
        step = grow(builder, tree.root, first, value=value)
        leaf = grow(builder, step, first if end == 0 else "a\na\n", value=end, terminal="eos")
        builder.back_up((tree.root, step, leaf), end, fresh=(tree.root, step))
        tree.completions.append(Completion(leaf.id, 1, leaf.length))
    return Mcts(TreeBuilder(tree, builder.budget), random.Random(0))


def test_the_rate_is_the_posterior_mean_of_a_fresh_answer_over_the_mean_length() -> None:
    # the prompt was not judged: its model value is the mean of the first steps', (0.2 + 0.4)/2 = 0.3
    # 4 pseudo-visits of 0.3 and 2 visits that sum to 1: (1.2 + 1)/(4 + 2); answers have (4 + 6)/2 tokens
    hurdle = two_answers(kappa=4.0)._hurdle()
    assert hurdle == Hurdle(rate=pytest.approx(2.2 / 6 / 5), mean_length=5)


def test_as_long_as_every_answer_was_cut_off_the_longest_says_how_long_they_are() -> None:
    tree = new_tree(**ABANDON, kappa=4.0)
    builder = TreeBuilder(tree, Budget(tree.params.budget, final=0, clock=lambda: 0.0))
    assert Mcts(builder, random.Random(0))._hurdle() is None
    step = grow(builder, tree.root, "a\n", value=0.4)
    leaf = grow(builder, step, "a\na\n", value=0.0, terminal="truncated")
    builder.back_up((tree.root, step, leaf), 0.0, fresh=(tree.root, step))
    grow(
        builder, tree.root, "a\na\na\na\n", value=0.0, terminal="pruned"
    )  # closed by a scorer: no answer's length
    hurdle = Mcts(TreeBuilder(tree, builder.budget), random.Random(0))._hurdle()
    assert hurdle is not None
    assert hurdle.mean_length == 6


def test_what_is_given_up_may_have_to_be_worth_only_a_share_of_that() -> None:
    whole, tenth = two_answers(kappa=4.0)._hurdle(), two_answers(kappa=4.0, abandon_below=0.1)._hurdle()
    assert whole is not None
    assert tenth == Hurdle(rate=pytest.approx(whole.rate / 10), mean_length=5)


def test_without_the_parameter_every_draw_goes_to_its_end() -> None:
    assert two_answers(abandon=False)._hurdle() is None


def doubtful(text: str) -> float:
    """One line in two is a waste, and the value model knows."""
    return 0.0 if WASTE in text else 0.5 if text.count("\n") < 3 else 1.0


def three_lines(text: str) -> Mapping[str, float]:
    return {"": 1.0} if text.count("\n") == 3 else {HOPE: 0.5, WASTE: 0.5}


def searched(simulations: int, **params: Any) -> World:
    return ran(
        three_lines,
        doubtful,
        **{**ABANDON, **params},
        budget=BudgetLimits(simulations=simulations),
        schedule="waves",
    )


@pytest.mark.parametrize("seed", range(8))
def test_the_first_answer_is_always_written_to_its_end(seed: int) -> None:
    tree = searched(1, seed=seed).tree
    assert len(tree.completions) == 1


@pytest.mark.parametrize("seed", range(8))
def test_once_an_answer_is_good_a_draw_breaks_off_at_the_first_step_that_is_worth_nothing(seed: int) -> None:
    tree = searched(30, seed=seed).tree
    good = min(c.simulation for c in tree.completions if tree.nodes[c.node].value)
    assert good < tree.usage.simulations
    for simulation in range(good + 1, tree.usage.simulations + 1):
        line = [node.text for node in tree.nodes if node.simulation == simulation]
        assert WASTE not in line[:-1]


def test_what_the_model_said_where_a_draw_broke_off_is_backed_up() -> None:
    tree = searched(40, seed=1).tree
    broken = [n for n in tree.nodes if not n.children and n.terminal is None]
    assert broken
    for node in broken:
        assert node.visits >= 1
        assert node.value_sum == pytest.approx(node.visits * (node.value or 0.0))


def test_giving_up_saves_tokens() -> None:
    all_the_way, saving = (searched(12, seed=3, abandon=flag) for flag in (False, True))
    assert saving.tree.usage.simulations == all_the_way.tree.usage.simulations == 12
    assert saving.policy.generated < 0.8 * all_the_way.policy.generated


def test_a_draw_is_judged_once_at_each_step() -> None:
    found = searched(40, seed=3)
    assert found.scorer.scored == len([n for n in found.tree.nodes if n.value is not None])
