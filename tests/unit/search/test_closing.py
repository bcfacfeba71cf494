"""Closed nodes, below which the policy has next to nothing new to say: worked by hand, then in whole searches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from string import ascii_lowercase
from typing import Any

import pytest

from fakes import letters
from ramify.search.budget import Budget
from ramify.search.builder import TreeBuilder
from ramify.search.cutting import SampledAction
from ramify.search.plans import Plan, PlanResult
from ramify.search.records import BudgetLimits, Sampling
from ramify.search.selection import Arm, arms
from ramify.search.tree import Node
from search_worlds import ONE_AT_A_TIME, check, encode, new_tree, ran


def new_builder(**tree: Any) -> TreeBuilder:
    found = new_tree(algorithm="mcts", **tree)
    return TreeBuilder(found, Budget(found.params.budget, final=0, clock=lambda: 0.0))


def step(text: str, probability: float, *, ends: bool = False) -> SampledAction:
    """One action of this probability; its first token has all the choice in it."""
    logprobs = (math.log(probability), *(0.0 for _ in text[1:]))
    return SampledAction(encode(text), logprobs, text, "fake", "eos" if ends else None, 0.5)


def draw(builder: TreeBuilder, *actions: SampledAction) -> list[Node]:
    """One draw from the root, merged."""
    plan = Plan(1, (builder.tree.root,), "path", 1, 100)
    (line,) = builder.merge(plan, PlanResult([list(actions)]))
    return line


def closed(builder: TreeBuilder) -> set[int]:
    """Ids of the nodes below which next to nothing is unseen."""
    return {node.id for node in builder.tree.nodes if not builder.unseen(node)}


def arms_at(builder: TreeBuilder, node: Node) -> list[Arm]:
    """The choices of a search that widens, at `node`."""
    return arms(
        node,
        builder.tree.children(node),
        fresh=builder.unseen(node),
        revisit=False,
        unseen=builder.unseen_below,
    )


def open_arms(builder: TreeBuilder, node: Node) -> list[str]:
    """The same: the texts of children to go down, and "fresh"."""
    return ["fresh" if arm.node is None else arm.node.text for arm in arms_at(builder, node)]


END = step("!", 1.0, ends=True)


def test_a_node_whose_only_continuation_is_known_is_closed_and_not_drawn_at_again():
    # "ab" is half of all answers, and after "a" and "b" the end is certain: nothing new below either
    builder = new_builder()
    a, b, end = draw(builder, step("a", 0.5), step("b", 1.0), END)
    assert closed(builder) == {a.id, b.id, end.id}
    assert open_arms(builder, a) == open_arms(builder, b) == []
    assert open_arms(builder, builder.tree.root) == ["fresh"]


@pytest.mark.parametrize(("known", "shut"), [(0.5, False), (0.985, False), (0.995, True), (1.0, True)])
def test_a_node_whose_unseen_continuations_hold_more_than_1_percent_stays_open(known: float, shut: bool):
    builder = new_builder()
    a, end = draw(builder, step("a", 0.5), step("!", known, ends=True))
    assert (a.id in closed(builder)) is shut
    assert end.id in closed(builder)
    assert open_arms(builder, a) == ([] if shut else ["fresh"])
    assert open_arms(builder, builder.tree.root) == (["fresh"] if shut else ["a", "fresh"])


def test_the_probability_of_an_action_is_that_of_all_its_tokens():
    # 0.999 · 0.9 = 0.8991 leaves more than 1 %, the first token by itself would not; with 0.1 it is 0.9991
    builder = new_builder()
    long = SampledAction(encode("xy"), (math.log(0.999), math.log(0.9)), "xy", "fake", "eos", 0.5)
    draw(builder, long)
    assert builder.tree.root.id not in closed(builder)
    draw(builder, step("z", 0.1, ends=True))
    assert builder.tree.root.id in closed(builder)


def test_drawing_a_known_answer_again_closes_nothing_more():
    # its 0.6 counts once: 0.6 + 0.6 would be more than all
    builder = new_builder()
    a, end = draw(builder, step("a", 0.6), END)
    assert draw(builder, step("a", 0.6), END) == [a, end]
    assert closed(builder) == {a.id, end.id}


def test_closing_climbs_to_the_first_node_that_is_still_open():
    # root ── a 0.7 ── x 0.6, y 0.4, each sure to end
    #     └── b 0.3, sure to end
    builder = new_builder()
    root = builder.tree.root
    a, x, _ = draw(builder, step("a", 0.7), step("x", 0.6), END)
    assert x.id in closed(builder)
    assert a.id not in closed(builder)
    assert open_arms(builder, a) == ["fresh"]
    y = draw(builder, step("a", 0.7), step("y", 0.4), END)[1]
    assert {a.id, y.id} <= closed(builder)
    assert root.id not in closed(builder)
    draw(builder, step("b", 0.3), END)
    assert closed(builder) == {node.id for node in builder.tree.nodes}
    assert open_arms(builder, root) == []


def test_a_child_that_is_known_but_still_open_keeps_its_parent_open():
    # 0.5 of a's children is closed, the other 0.5 known and unfinished: both are children, only one has nothing new
    builder = new_builder()
    a, x, _ = draw(builder, step("a", 1.0), step("x", 0.5), END)
    y = draw(builder, step("a", 1.0), step("y", 0.5))[1]
    assert closed(builder) >= {x.id}
    assert not closed(builder) & {a.id, y.id, builder.tree.root.id}
    assert open_arms(builder, a) == ["y", "fresh"]


def test_what_is_unseen_below_a_node_is_one_less_the_probability_of_the_answers_known_there():
    # root ── a 0.7 ── x 0.6, sure to end: 0.42 of all answers
    #     └── b 0.3 ── y 0.5, sure to end: 0.15
    builder = new_builder()
    root = builder.tree.root
    a, x, _ = draw(builder, step("a", 0.7), step("x", 0.6), END)
    b = draw(builder, step("b", 0.3), step("y", 0.5), END)[0]
    assert [builder.unseen(node) for node in (root, a, b, x)] == pytest.approx([0.43, 0.4, 0.5, 0.0])
    seen = {arm.node.id if arm.node else 0: arm.unseen for arm in arms_at(builder, root)}
    assert seen == pytest.approx({a.id: 0.4, b.id: 0.5, 0: 0.43})


def test_greedy_log_probs_close_nothing_but_the_leaf():
    # at temperature 0 the log-probs are those of temperature 1: they do not say how likely the draw was
    builder = new_builder(sampling=Sampling(temperature=0))
    *_, end = draw(builder, step("a", 1.0), step("b", 1.0), END)
    assert closed(builder) == {end.id}


def test_a_search_that_only_goes_down_its_children_visits_closed_ones_again():
    # `expand: step` without `widen` has finished answers as arms, and what is closed is no more final than they are
    builder = new_builder(expand="step")
    draw(builder, step("a", 0.5), END)
    children = builder.tree.children(builder.tree.root)
    found = arms(builder.tree.root, children, fresh=False, revisit=True, unseen=builder.unseen_below)
    assert [arm.node.text for arm in found if arm.node] == ["a"]


# Whole searches


def one_letter(text: str) -> Mapping[str, float]:
    """A line of one of 26 letters; the end after it is certain."""
    return {"": 1.0} if text else {f"{letter}\n": 1 / 26 for letter in ascii_lowercase}


def test_no_request_asks_for_a_last_step_that_is_certain_and_known():
    # every node at depth 1 has one continuation, known since the draw that brought it: all requests are the prompt's
    found = ran(one_letter, algorithm="mcts", width=2, budget=BudgetLimits(simulations=20), **ONE_AT_A_TIME)
    assert found.tree.stop_reason == "budget.simulations"
    assert [text for text, _, _ in found.policy.requests] == ["?\n"] * 20
    check(found)


WIDENING: list[dict[str, Any]] = [
    {"algorithm": "mcts", "select": "puct"},
    {"algorithm": "mcts", "select": "thompson"},
    {"algorithm": "mcts", "expand": "step", "widen": True},
    {"algorithm": "gumbel", "considered": 4, "expand": "path"},
]


@pytest.mark.parametrize("params", WIDENING, ids=lambda p: "-".join(map(str, p.values())))
def test_a_fully_known_tree_ends_exhausted(params: dict[str, Any]):
    found = ran(
        letters({"a": 0.6, "b": 0.4}, 2), **params, budget=BudgetLimits(simulations=400), **ONE_AT_A_TIME
    )
    tree = found.tree
    assert (tree.status, tree.stop_reason) == ("complete", "exhausted")
    assert tree.usage.simulations < 400
    assert {tree.text(node).replace("\n", "") for node in tree.complete()} == {"aa", "ab", "ba", "bb"}
    assert closed(found.search.builder) == {node.id for node in tree.nodes}
    check(found)


def test_a_tree_of_which_more_than_1_percent_is_unseen_spends_its_budget():
    # 4^4 = 256 answers, all as likely; 40 draws see at most 40 of them
    rule = letters(dict.fromkeys("abcd", 0.25), 4)
    found = ran(rule, algorithm="mcts", width=1, budget=BudgetLimits(simulations=40), **ONE_AT_A_TIME)
    assert found.tree.stop_reason == "budget.simulations"
    assert found.tree.usage.simulations == 40
    assert found.tree.root.id not in closed(found.search.builder)
