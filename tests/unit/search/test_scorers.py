"""Several scorers at once: the weighted mean of their values, and branches that safety scorers prune."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from fakes import FakePolicy, FakeScorer, FakeTask
from ramify.search.answers import most_visited
from ramify.search.codec import BadTree, tree_from_dict, tree_to_dict
from ramify.search.records import BudgetLimits, Sampling, Score
from ramify.search.scorers import NamedScorer, Scorers
from search_worlds import (
    AB,
    STEP,
    JudgingFake,
    World,
    check,
    described,
    first,
    last,
    parity,
    ran,
    rule_for,
    variants,
)

BUDGET = BudgetLimits(simulations=24)


def no_b(text: str) -> float:
    """A safety scorer that cannot bear a `b`."""
    return 0.1 if "b" in text else 0.9


def never(text: str) -> float:
    return 0.1


SAFE: dict[str, Any] = {"prunes": {"safety": (no_b, 0.5)}}


def clean(found: World) -> None:
    """Check that pruning is whole: nothing unsafe is in the tree but the ends that were pruned, and no answer is."""
    for node in found.tree.nodes[1:]:
        unsafe = "b" in found.tree.text(node)
        assert (node.terminal == "pruned") == unsafe
        assert node.pruned_by == ("safety" if unsafe else None)
        assert (node.scores or {})["safety"] == (0.1 if unsafe else 0.9)
    for answer in found.tree.candidates:
        assert "b" not in answer.text


def test_a_value_is_the_weighted_mean_and_the_tree_keeps_each_by_its_name() -> None:
    found = ran(AB, first, weights={"last": (last, 3.0), "even": (parity, 0.0)}, budget=BUDGET)
    check(found)
    for node in found.tree.nodes[1:]:
        text = found.tree.text(node)
        assert node.scores == {"value": first(text), "last": last(text), "even": parity(text)}
        assert node.value == pytest.approx((first(text) + 3 * last(text)) / 4)


@pytest.mark.parametrize("policy", [None, JudgingFake(AB, value=first)])
def test_verifier_and_model_mix_by_their_weights_and_stay_apart_in_the_tree(
    policy: FakePolicy | None,
) -> None:
    task = FakeTask(lambda text: text.endswith("a\n"))
    found = ran(AB, first, policy=policy, task=task, budget=BUDGET, grader="mixed", verifier_weight=0.25)
    assert found.tree.complete()
    for node in found.tree.complete():
        text = found.tree.text(node)
        outcome = float(text.endswith("a\n"))
        assert (node.value, node.outcome) == (first(text), outcome)
        assert found.tree.leaf_value(node) == pytest.approx(0.25 * outcome + 0.75 * first(text))
    assert all(node.outcome is None for node in found.tree.nodes if node.terminal is None)


def test_if_the_verifier_fails_the_model_alone_says_what_a_mix_is_worth() -> None:
    tree = ran(AB, first, task=FakeTask(broken=lambda text: True), budget=BUDGET, grader="mixed").tree
    assert all(tree.leaf_value(node) == first(tree.text(node)) for node in tree.complete())


def test_a_lone_scorer_leaves_nothing_in_the_tree_but_its_values() -> None:
    assert all("scores" not in node for node in tree_to_dict(ran(AB, first, budget=BUDGET).tree)["nodes"])


@pytest.mark.parametrize("params", variants(), ids=described)
def test_under_every_algorithm_a_pruned_branch_is_worth_0_and_ends_there(params: dict[str, Any]) -> None:
    found = ran(rule_for(params), budget=BUDGET, **SAFE, **params)
    check(found)
    clean(found)
    assert found.tree.pruned
    for node in found.tree.nodes:
        if node.terminal == "pruned":
            assert not node.children
            assert node.value_sum == 0


@pytest.mark.parametrize("grader", ["model", "verifier", "mixed", "confidence"])
def test_it_prunes_whoever_judges_answers(grader: str) -> None:
    found = ran(AB, budget=BUDGET, grader=grader, early_stop="off", **SAFE)
    check(found)
    clean(found)
    assert all(node.outcome is None for node in found.tree.nodes if node.terminal == "pruned")


def likes_b(text: str) -> Mapping[str, float]:
    """The policy likes an unsafe first step best, so most visits are there at first."""
    if text.count("\n") == 3:
        return {"": 1.0}
    return {"a\n": 0.9, "b\n": 0.1} if text else {"b\n": 0.8, "a\n": 0.2}


@pytest.mark.parametrize("simulations", [16, 40])
def test_no_search_moves_to_a_pruned_step_however_often_it_was_drawn(simulations: int) -> None:
    budget, committed = BudgetLimits(simulations=simulations), 0
    for seed in range(12):
        tree = ran(likes_b, seed=seed, budget=budget, expand="path", commit="step", tau=1.0, **SAFE).tree
        assert all(tree.nodes[i].terminal != "pruned" for i in tree.committed)
        committed += len(tree.committed)
    assert committed


def test_the_path_of_most_visits_is_one_of_live_branches() -> None:
    more_unsafe = 0
    for seed in range(12):
        tree = ran(likes_b, seed=seed, budget=BudgetLimits(simulations=8), answer="most_visited", **SAFE).tree
        visits = {child.terminal: child.visits for child in tree.children(tree.root)}
        more_unsafe += visits.get("pruned", 0) > visits.get(None, 0)
        assert most_visited(tree).terminal != "pruned"
    assert more_unsafe


def test_a_tree_with_a_live_branch_is_not_all_pruned() -> None:
    tree = ran(AB, budget=BUDGET, **SAFE).tree
    assert tree.pruned
    assert not tree.all_pruned
    assert not ran(AB, budget=BUDGET).tree.all_pruned


def test_a_vote_without_any_value_is_held_among_what_is_safe() -> None:
    found = ran(AB, None, algorithm="self_consistency", budget=BUDGET, **SAFE)
    check(found)
    clean(found)
    assert found.tree.answer is not None
    assert found.tree.answer.value is None


def test_a_policy_that_judges_what_it_writes_is_pruned_too() -> None:
    policy = JudgingFake(AB)
    found = ran(policy=policy, value=None, budget=BUDGET, abandon=True, **SAFE)
    clean(found)
    assert any(node.value == parity(found.tree.text(node)) for node in found.tree.nodes[1:])


def test_each_new_text_is_shown_to_a_safety_scorer_once() -> None:
    found = ran(AB, budget=BudgetLimits(simulations=60), parallel=1, prunes={"safety": (parity, 0.01)})
    assert found.beside["safety"].scored == len(found.tree.nodes) - 1


def test_what_would_follow_a_pruned_text_is_not_shown_again() -> None:
    found = ran(AB, algorithm="beam", action=STEP, budget=BudgetLimits(simulations=60), parallel=1, **SAFE)
    assert found.beside["safety"].scored == len(found.tree.nodes) - 1


def test_if_all_is_pruned_there_is_no_answer_and_the_reason_says_so() -> None:
    found = ran(AB, budget=BUDGET, prunes={"safety": (never, 0.5)})
    check(found)
    tree = found.tree
    assert (tree.status, tree.stop_reason, tree.answer, tree.candidates) == ("complete", "pruned", None, [])


def test_a_text_that_was_cut_short_is_given_only_if_it_is_safe() -> None:
    found = ran(AB, budget=BUDGET, sampling=Sampling(max_tokens=3), **SAFE)
    check(found)
    assert found.tree.answer is not None
    assert "b" not in found.tree.answer.text


def test_the_first_safety_scorer_that_prunes_is_named() -> None:
    prunes = {"calm": (first, 0.01), "strict": (no_b, 0.5), "late": (never, 0.5)}
    tree = ran(AB, budget=BUDGET, prunes=prunes).tree
    assert {(n.text, n.pruned_by) for n in tree.nodes[1:]} == {("a\n", "late"), ("b\n", "strict")}


def test_a_pruned_answer_is_not_graded() -> None:
    task = FakeTask(lambda text: True)
    ran(AB, task=task, budget=BUDGET, grader="verifier", early_stop="off", prunes={"s": (never, 0.5)})
    assert task.graded == 0


def test_a_scorer_whose_reply_is_none_is_named() -> None:
    tree = ran(AB, budget=BUDGET, weights={"prm": (lambda _: 1.5, 1.0)}).tree
    assert tree.status == "failed"
    assert "scorer 'prm' gave the value 1.5" in (tree.error or "")


def test_several_judge_as_one_by_their_mean() -> None:
    scorers = Scorers(
        {
            "a": NamedScorer(FakeScorer(first), weight=1),
            "b": NamedScorer(FakeScorer(last), weight=3),
            "safety": NamedScorer(FakeScorer(never), prune_below=0.5),
        }
    )
    (score,) = asyncio.run(scorers.score([[ord(c) for c in "?\na\nb\n"]]))
    assert score == Score((0.9 + 3 * 0.6) / 4, "fake")


@pytest.mark.parametrize("news", [{"pruned_by": "x"}, {"scores": {"x": 1.5}}, {"terminal": "pruned"}])
def test_a_tree_that_contradicts_itself_about_pruning_is_refused(news: dict[str, Any]) -> None:
    document = tree_to_dict(ran(AB, budget=BUDGET).tree)
    document["nodes"][1] |= news
    with pytest.raises(BadTree):
        tree_from_dict(document)
