"""Closed nodes, below which the policy has next to nothing new to say: worked by hand, then in whole searches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from string import ascii_lowercase
from typing import Any

import pytest

from fakes import letters
from ramify.search.arms import Arm, arms
from ramify.search.budget import Budget
from ramify.search.growth import Growth
from ramify.search.plans import Drawn, Grown, Plan
from ramify.search.records import Limits, Sampling
from ramify.search.tree import Node
from search_worlds import ONE_AT_A_TIME, check, encode, new_tree, ran


def growing(**tree: Any) -> Growth:
    found = new_tree(algorithm="mcts", **tree)
    return Growth(found, Budget(found.params.budget, final=0, clock=lambda: 0.0))


def step(text: str, probability: float, *, ends: bool = False) -> Grown:
    """One action of this probability; its first token has all the choice in it."""
    logprobs = (math.log(probability), *(0.0 for _ in text[1:]))
    return Grown(encode(text), logprobs, text, "eos" if ends else None, "fake", 0.5)


def draw(growth: Growth, *actions: Grown) -> list[Node]:
    """One draw from the root, merged."""
    plan = Plan(1, (growth.tree.root,), "path", 1, 100)
    (line,) = growth.merge(plan, Drawn([list(actions)]))
    return line


def closed(growth: Growth) -> set[int]:
    """Ids of the nodes below which next to nothing is unseen."""
    return {node.id for node in growth.tree.nodes if not growth.unseen(node)}


def arms_at(growth: Growth, node: Node) -> list[Arm]:
    """What a search that widens can do at `node`."""
    return arms(node, growth.tree.children(node), fresh=True, revisit=False, unseen=growth.unseen)


def open_arms(growth: Growth, node: Node) -> list[str]:
    """The same: the texts of children to go down, and "fresh"."""
    return ["fresh" if arm.node is None else arm.node.text for arm in arms_at(growth, node)]


END = step("!", 1.0, ends=True)


def test_a_node_whose_only_continuation_is_known_is_closed_and_not_drawn_at_again():
    # "ab" is half of all answers, and after "a" and "b" the end is certain: nothing new below either
    growth = growing()
    a, b, end = draw(growth, step("a", 0.5), step("b", 1.0), END)
    assert closed(growth) == {a.id, b.id, end.id}
    assert open_arms(growth, a) == open_arms(growth, b) == []
    assert open_arms(growth, growth.tree.root) == ["fresh"]


@pytest.mark.parametrize(("known", "shut"), [(0.5, False), (0.985, False), (0.995, True), (1.0, True)])
def test_a_node_whose_unseen_continuations_hold_more_than_1_percent_stays_open(known: float, shut: bool):
    growth = growing()
    a, end = draw(growth, step("a", 0.5), step("!", known, ends=True))
    assert (a.id in closed(growth)) is shut
    assert end.id in closed(growth)
    assert open_arms(growth, a) == ([] if shut else ["fresh"])
    assert open_arms(growth, growth.tree.root) == (["fresh"] if shut else ["a", "fresh"])


def test_the_probability_of_an_action_is_that_of_all_its_tokens():
    # 0.999 · 0.9 = 0.8991 leaves more than 1 %, the first token by itself would not; with 0.1 it is 0.9991
    growth = growing()
    long = Grown(encode("xy"), (math.log(0.999), math.log(0.9)), "xy", "eos", "fake", 0.5)
    draw(growth, long)
    assert growth.tree.root.id not in closed(growth)
    draw(growth, step("z", 0.1, ends=True))
    assert growth.tree.root.id in closed(growth)


def test_drawing_a_known_answer_again_closes_nothing_more():
    # its 0.6 counts once: 0.6 + 0.6 would be more than all
    growth = growing()
    a, end = draw(growth, step("a", 0.6), END)
    assert draw(growth, step("a", 0.6), END) == [a, end]
    assert closed(growth) == {a.id, end.id}


def test_closing_climbs_to_the_first_node_that_is_still_open():
    # root ── a 0.7 ── x 0.6, y 0.4, each sure to end
    #     └── b 0.3, sure to end
    growth = growing()
    root = growth.tree.root
    a, x, _ = draw(growth, step("a", 0.7), step("x", 0.6), END)
    assert x.id in closed(growth)
    assert a.id not in closed(growth)
    assert open_arms(growth, a) == ["fresh"]
    y = draw(growth, step("a", 0.7), step("y", 0.4), END)[1]
    assert {a.id, y.id} <= closed(growth)
    assert root.id not in closed(growth)
    draw(growth, step("b", 0.3), END)
    assert closed(growth) == {node.id for node in growth.tree.nodes}
    assert open_arms(growth, root) == []


def test_a_child_that_is_known_but_still_open_keeps_its_parent_open():
    # 0.5 of a's children is closed, the other 0.5 known and unfinished: both are children, only one has nothing new
    growth = growing()
    a, x, _ = draw(growth, step("a", 1.0), step("x", 0.5), END)
    y = draw(growth, step("a", 1.0), step("y", 0.5))[1]
    assert closed(growth) >= {x.id}
    assert not closed(growth) & {a.id, y.id, growth.tree.root.id}
    assert open_arms(growth, a) == ["y", "fresh"]


def test_what_is_unseen_below_a_node_is_one_less_the_probability_of_the_answers_known_there():
    # root ── a 0.7 ── x 0.6, sure to end: 0.42 of all answers
    #     └── b 0.3 ── y 0.5, sure to end: 0.15
    growth = growing()
    root = growth.tree.root
    a, x, _ = draw(growth, step("a", 0.7), step("x", 0.6), END)
    b = draw(growth, step("b", 0.3), step("y", 0.5), END)[0]
    assert [growth.unseen(node) for node in (root, a, b, x)] == pytest.approx([0.43, 0.4, 0.5, 0.0])
    seen = {arm.node.id if arm.node else 0: arm.unseen for arm in arms_at(growth, root)}
    assert seen == pytest.approx({a.id: 0.4, b.id: 0.5, 0: 0.43})


def test_greedy_log_probs_close_nothing_but_the_leaf():
    # at temperature 0 the log-probs are those of temperature 1: they do not say how likely the draw was
    growth = growing(sampling=Sampling(temperature=0))
    *_, end = draw(growth, step("a", 1.0), step("b", 1.0), END)
    assert closed(growth) == {end.id}


def test_a_search_that_only_goes_down_its_children_visits_closed_ones_again():
    # `expand: step` without `widen` has finished answers as arms, and what is closed is no more final than they are
    growth = growing(expand="step")
    draw(growth, step("a", 0.5), END)
    children = growth.tree.children(growth.tree.root)
    found = arms(growth.tree.root, children, fresh=False, revisit=True, unseen=growth.unseen)
    assert [arm.node.text for arm in found if arm.node] == ["a"]


# Whole searches


def one_letter(text: str) -> Mapping[str, float]:
    """A line of one of 26 letters; the end after it is certain."""
    return {"": 1.0} if text else {f"{letter}\n": 1 / 26 for letter in ascii_lowercase}


def test_no_request_asks_for_a_last_step_that_is_certain_and_known():
    # every node at depth 1 has one continuation, known since the draw that brought it: all requests are the prompt's
    found = ran(one_letter, algorithm="mcts", width=2, budget=Limits(simulations=20), **ONE_AT_A_TIME)
    assert found.tree.stop_reason == "budget.simulations"
    assert [text for text, _ in found.policy.requests] == ["?\n"] * 20
    check(found)


WIDENING: list[dict[str, Any]] = [
    {"algorithm": "mcts", "select": "puct"},
    {"algorithm": "mcts", "select": "thompson"},
    {"algorithm": "mcts", "expand": "step", "widen": True},
    {"algorithm": "gumbel", "considered": 4, "expand": "path"},
]


@pytest.mark.parametrize("params", WIDENING, ids=lambda p: "-".join(map(str, p.values())))
def test_a_fully_known_tree_ends_exhausted(params: dict[str, Any]):
    found = ran(letters({"a": 0.6, "b": 0.4}, 2), **params, budget=Limits(simulations=400), **ONE_AT_A_TIME)
    tree = found.tree
    assert (tree.status, tree.stop_reason) == ("complete", "exhausted")
    assert tree.usage.simulations < 400
    assert {tree.text(node).replace("\n", "") for node in tree.complete()} == {"aa", "ab", "ba", "bb"}
    assert closed(found.search.growth) == {node.id for node in tree.nodes}
    check(found)


def test_a_tree_of_which_more_than_1_percent_is_unseen_spends_its_budget():
    # 4^4 = 256 answers, all as likely; 40 draws see at most 40 of them
    rule = letters(dict.fromkeys("abcd", 0.25), 4)
    found = ran(rule, algorithm="mcts", width=1, budget=Limits(simulations=40), **ONE_AT_A_TIME)
    assert found.tree.stop_reason == "budget.simulations"
    assert found.tree.usage.simulations == 40
    assert found.tree.root.id not in closed(found.search.growth)
