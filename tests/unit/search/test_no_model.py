"""Searches without a value model: by the policy's own confidence, or by a verifier's outcomes alone."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from fakes import FakePolicy, FakeTask, encode, letters
from ramify.search import ParamError, search
from ramify.search.params import default_algorithm, no_model_defaults, over_defaults, search_params
from ramify.search.records import Action, BudgetLimits
from ramify.search.tree import Node, Tree
from search_worlds import (
    PROMPT,
    STEP,
    JudgingFake,
    check,
    described,
    lines,
    parity,
    ran,
    rule_for,
    variants,
)

BUDGET = BudgetLimits(simulations=24)


def perplexity(tree: Tree, node: Node) -> float:
    logprobs = [x for step in tree.steps(node) for x in step.logprobs]
    return math.exp(-sum(logprobs) / len(logprobs))


@pytest.mark.parametrize("params", variants(), ids=described)
def test_the_value_of_every_text_is_the_inverse_of_its_perplexity(params: dict[str, Any]) -> None:
    given = {"answer": "orm_vote", **params, "grader": "confidence"}
    found = ran(rule_for(params), None, budget=BUDGET, **given)
    check(found)
    tree = found.tree
    assert tree.status == "complete", tree.error
    assert tree.completions
    for node in tree.nodes[1:]:
        if node.terminal != "truncated":
            assert node.value == pytest.approx(1 / perplexity(tree, node))
    assert found.scorer.scored == 0


@pytest.mark.parametrize(
    "params", [v for v in variants() if v.get("leaf") != "mixed" and not v.get("abandon")], ids=described
)
def test_with_a_verifier_alone_only_answers_are_worth_anything(params: dict[str, Any]) -> None:
    given = {"grader": "verifier", **params}
    given |= no_model_defaults(given["algorithm"], given)
    task = FakeTask(lambda text: text.startswith("b"))
    found = ran(rule_for(params), None, task=task, budget=BUDGET, early_stop="off", **given)
    check(found)
    tree = found.tree
    assert tree.status == "complete", tree.error
    for node in tree.nodes[1:]:
        if node.terminal != "truncated":
            assert node.value is None
            assert (node.outcome is not None) == (node.terminal is not None)
    assert any(node.visits for node in tree.nodes), "outcomes are backed up"
    assert tree.answer is not None


def test_confidence_takes_the_place_of_what_a_judging_policy_says() -> None:
    policy = JudgingFake(lines, value=parity)
    found = ran(policy=policy, grader="confidence", action=STEP, abandon=True, budget=BUDGET)
    tree = found.tree
    assert all(n.value == pytest.approx(1 / perplexity(tree, n)) for n in tree.nodes[1:] if n.value)
    assert (policy.given_up, found.scorer.scored) == (0, 0), "its own values give nothing up"


def test_an_unlikely_path_is_given_up_by_its_confidence() -> None:
    def rule(text: str) -> dict[str, float]:
        """One letter in two is an `x`, after which anything may follow; after an `a` all is certain."""
        if not text:
            return {"a": 0.5, "x": 0.5}
        if len(text) == 6:
            return {"": 1.0}
        return {"a": 1.0} if text[0] == "a" else dict.fromkeys("bcdefghijk", 0.1)

    action = Action("chunk", (), 2)
    found = ran(rule, None, grader="confidence", action=action, abandon=True, kappa=8.0, budget=BUDGET)
    given_up = [n for n in found.tree.nodes[1:] if n.terminal is None and not n.children]
    assert given_up
    assert all(found.tree.text(n).startswith("x") for n in given_up)


def test_votes_are_weighted_by_confidence_unless_the_request_says_otherwise() -> None:
    assert search_params("best_of_n", grader="confidence").answer == "orm_vote"
    assert search_params("best_of_n", grader="confidence", answer="orm_max").answer == "orm_max"
    assert search_params("self_consistency", grader="confidence").answer == "majority"
    found = ran(
        letters({"a": 0.9, "b": 0.1}, 1), None, algorithm="best_of_n", grader="confidence", budget=BUDGET
    )
    drawn = {found.tree.text(n)[0]: (n.multiplicity, n.value or 0.0) for n in found.tree.complete()}
    weights = {letter: times * value for letter, (times, value) in drawn.items()}
    votes = {answer.text[0]: answer.votes for answer in found.tree.candidates}
    assert votes == pytest.approx({k: w / sum(weights.values()) for k, w in weights.items()})


def test_a_confident_answer_is_not_taken_for_a_right_one() -> None:
    sure = ran(
        letters({"a": 1.0}, 3), None, algorithm="best_of_n", grader="confidence", budget=BudgetLimits(1)
    )
    assert sure.tree.answer is not None
    assert sure.tree.answer.value == pytest.approx(1.0)
    assert sure.search.probability_right == pytest.approx(0.5), "one draw says little"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"grader": "model"}, "grader"),
        ({"algorithm": "best_of_n", "grader": "model"}, "grader"),
        ({"grader": "verifier", "abandon": True}, "abandon"),
        ({"grader": "verifier", "expand": "step", "leaf": "value"}, "leaf"),
        ({"algorithm": "gumbel", "grader": "verifier", "expand": "step", "leaf": "mixed"}, "leaf"),
    ],
)
def test_what_needs_a_model_is_refused_by_name(given: dict[str, Any], field: str) -> None:
    policy, task = FakePolicy(letters({"a": 1.0}, 2)), FakeTask()
    with pytest.raises(ParamError, match="there is none") as refused:
        asyncio.run(search(encode(PROMPT), policy, None, task, budget=BUDGET, **given))
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("defaults", "given", "used"),
    [
        ({"kappa": 0.9, "abandon": True}, {"grader": "verifier"}, {"kappa": 0.9}),
        ({"kappa": 0.9, "abandon": True}, {}, {"kappa": 0.9, "abandon": True}),
        ({"expand": "step", "leaf": "value"}, {"grader": "verifier"}, {"expand": "step"}),
        ({"grader": "model", "kappa": 0.9}, {}, {"kappa": 0.9}),
        (
            {"grader": "verifier", "expand": "step", "leaf": "mixed"},
            {},
            {"grader": "verifier", "expand": "step"},
        ),
    ],
)
def test_a_default_that_needs_a_model_gives_way_where_there_is_none(
    defaults: dict[str, Any], given: dict[str, Any], used: dict[str, Any]
) -> None:
    params, held = over_defaults("mcts", defaults, given, judged=False)
    assert held == used
    assert params.grader == {**used, **given}.get("grader", "confidence")
    assert params.grader != "verifier" or params.expand == "path" or params.leaf == "rollout"


@pytest.mark.parametrize(
    ("given", "judged", "algorithm"),
    [
        ({}, False, "best_of_n"),
        ({"answer": "majority"}, False, "best_of_n"),
        ({"answer": "most_visited"}, False, "mcts"),
        ({"grader": "confidence"}, True, "best_of_n"),
        ({}, True, "mcts"),
        ({"grader": "verifier"}, False, "mcts"),
        ({"action": STEP}, False, "mcts"),
    ],
)
def test_confidence_weighs_the_votes_of_independent_draws_unless_a_tree_is_asked_for(
    given: dict[str, Any], judged: bool, algorithm: str
) -> None:
    assert default_algorithm(given, judged=judged) == algorithm


@pytest.mark.parametrize(
    ("given", "grader"), [({}, "confidence"), ({"expand": "step", "grader": "verifier"}, "verifier")]
)
def test_a_program_without_a_scorer_searches(given: dict[str, Any], grader: str) -> None:
    policy, task = FakePolicy(letters({"a": 0.6, "b": 0.4}, 3)), FakeTask(lambda text: "b" in text)
    tree = asyncio.run(search(encode(PROMPT), policy, None, task, budget=BUDGET, **given))
    assert (tree.status, tree.params.grader) == ("complete", grader), tree.error
    assert tree.answer is not None
