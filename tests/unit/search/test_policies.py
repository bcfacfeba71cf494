"""Searches that draw from several policies: the tree's names, what fails, and what it is good for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from fakes import FakePolicy, FakeReviser, FakeScorer, FakeTask, Rule, encode, letters
from ramify.search import Action, BudgetLimits, ParamError, Sampling, Search, Tree, search
from ramify.search.codec import BadTree, tree_from_dict, tree_to_dict
from ramify.search.params import search_params
from ramify.search.policies import PolicyBandit
from ramify.search.protocols import SampleAborted
from search_worlds import (
    AB,
    PROMPT,
    REFINE,
    TOKEN,
    JudgingFake,
    check_answers,
    check_nodes,
    check_visits,
    described,
    new_tree,
    parity,
    rule_for,
    shape,
    variants,
    words,
)

BOTH = ("policy", "other")


def found(policies: Mapping[str, FakePolicy], task: FakeTask | None = None, **params: Any) -> Tree:
    """A finished search with these policies, judged by `parity` unless a `value` is given."""
    scorer = FakeScorer(params.pop("value", parity))
    tree = new_tree(policies=tuple(policies), **params)
    run = Search(tree, policies, scorer, task or FakeTask(), clock=lambda: 0.0)
    asyncio.run(run.run())
    return tree


# -- searches --------------------------------------------------------------------------------------------------------

LETTERS = letters({"a": 0.6, "b": 0.4}, 3)
SAMPLING = Sampling(max_tokens=12)
SEVERAL = [v for v in variants() if v.get("action") is not TOKEN and v.get("action") is not REFINE]


def pair(params: Mapping[str, Any]) -> dict[str, FakePolicy]:
    rule = rule_for(params)
    other = {"b\n": 0.7, "c\n": 0.3} if "a\n" in rule("") else {"b": 0.7, "c": 0.3}

    def others(text: str) -> Mapping[str, float]:
        return other if len(text) < 3 else rule(text)

    return {"policy": FakePolicy(rule), "other": FakePolicy(others)}


@pytest.mark.parametrize("schedule", ["waves", "continuous"])
@pytest.mark.parametrize("params", SEVERAL, ids=described)
def test_every_algorithm_draws_from_several_and_keeps_the_laws(params: dict[str, Any], schedule: str) -> None:
    policies = pair(params)
    budget = BudgetLimits(simulations=30, tokens=300)
    tree = found(policies, budget=budget, sampling=SAMPLING, schedule=schedule, **params)
    assert tree.status == "complete", tree.error
    check_nodes(tree)
    check_visits(tree)
    check_answers(tree)
    assert tree.usage.by_policy is not None
    asked = sum(len(policy.requests) for policy in policies.values())
    for name, policy in policies.items():
        part = tree.usage.by_policy[name]
        assert part.completion_tokens == policy.generated
        assert (part.draws > 0) == (part.completion_tokens > 0)
        assert part.draws > 0 or asked < 10
        assert part.value is None if part.draws == 0 else 0 <= part.value <= 1
        assert part.closed is None
    assert tree.usage.completion_tokens == sum(
        part.completion_tokens for part in tree.usage.by_policy.values()
    )
    for node in tree.nodes[1:]:
        assert node.policy in policies
        assert sum(node.draws_of(name) for name in policies) == node.multiplicity


@pytest.mark.parametrize("params", SEVERAL, ids=described)
def test_in_waves_the_seed_decides_the_whole_tree(params: dict[str, Any]) -> None:
    def grown(jitter: int) -> dict[str, Any]:
        policies = pair(params)
        for i, policy in enumerate(policies.values()):
            policy.jitter = random.Random(jitter + i)
        budget = BudgetLimits(simulations=20)
        return shape(found(policies, budget=budget, sampling=SAMPLING, schedule="waves", **params))

    assert grown(1) == grown(99)


def test_the_same_text_of_two_policies_is_one_node_that_counts_both() -> None:
    policies = {name: FakePolicy(letters({"a": 1.0}, 1)) for name in BOTH}
    tree = found(policies, algorithm="best_of_n", budget=BudgetLimits(simulations=12))
    (node,) = tree.nodes[1:]
    assert node.policy in BOTH
    assert node.multiplicity == 12
    assert node.drawn_by is not None
    assert set(node.drawn_by) == set(BOTH)
    assert next(iter(node.drawn_by)) == node.policy
    assert sum(node.drawn_by.values()) == 12
    assert tree_from_dict(tree_to_dict(tree)) == tree
    broken = tree_to_dict(tree)
    broken["nodes"][1]["drawn_by"]["policy"] += 1
    with pytest.raises(BadTree, match="was drawn 12 times"):
        tree_from_dict(broken)


def test_a_node_has_the_log_probabilities_of_the_policy_that_it_names() -> None:
    policies = {
        "policy": FakePolicy(letters({"a": 0.25, "b": 0.75}, 2)),
        "other": FakePolicy(letters({"a": 0.5, "b": 0.5}, 2)),
    }
    probability = {"policy": {"a": 0.25, "b": 0.75}, "other": {"a": 0.5, "b": 0.5}}
    tree = found(policies, action=Action("step", ("\n",), 4), budget=BudgetLimits(simulations=40))
    drawn = [node for node in tree.nodes[1:] if node.text.strip()]
    assert {node.policy for node in drawn} == set(BOTH)
    for node in drawn:
        assert 2.718281828459045 ** node.logprobs[0] == pytest.approx(
            probability[str(node.policy)][node.text.strip()]
        )


@pytest.mark.parametrize("seed", range(4))
def test_a_policy_that_is_sure_of_its_answer_does_not_keep_another_from_being_asked(seed: int) -> None:
    sure = {"policy": FakePolicy(letters({"a": 1.0}, 2)), "other": FakePolicy(letters({"z": 1.0}, 2))}
    tree = found(sure, budget=BudgetLimits(simulations=20), parallel=1, seed=seed)
    assert {node.policy for node in tree.complete()} == set(BOTH)
    assert tree.stop_reason == "exhausted"


def test_a_closed_tree_of_one_policy_is_no_end_while_another_has_more_to_say() -> None:
    """`policy` has two answers and has given both; `other` has a hundred and is asked on."""
    policies = {
        "policy": FakePolicy(letters({"a": 0.5, "b": 0.5}, 1)),
        "other": FakePolicy(letters({chr(200 + i): 0.01 for i in range(100)}, 1)),
    }
    tree = found(policies, budget=BudgetLimits(simulations=60))
    assert tree.usage.by_policy is not None
    assert tree.usage.by_policy["policy"].draws < 30
    assert len(tree.nodes) > 2 * 25


@pytest.mark.parametrize("names", [(), ("policy",)])
def test_without_others_the_tree_is_that_of_the_policy_alone(names: tuple[str, ...]) -> None:
    def grown(**several: Any) -> list[tuple[int, ...]]:
        policies = {"policy": FakePolicy(AB), "other": FakePolicy(letters({"c": 1.0}, 1))}
        tree = new_tree(**several)
        asyncio.run(Search(tree, policies, FakeScorer(parity), FakeTask(), clock=lambda: 0.0).run())
        assert policies["other"].generated == 0
        return [node.tokens for node in tree.nodes]

    assert grown(policies=names) == grown()


def test_without_names_nothing_of_policies_is_in_the_document() -> None:
    tree = new_tree()
    asyncio.run(Search(tree, FakePolicy(AB), FakeScorer(parity), FakeTask(), clock=lambda: 0.0).run())
    text = repr(tree_to_dict(tree))
    assert not any(word in text for word in ("by_policy", "policies", "drawn_by", "prompts", "'policy'"))


def test_a_policy_with_a_prompt_of_its_own_is_given_that() -> None:
    other = FakePolicy(letters({"b": 0.5, "c": 0.5}, 3), prompt="Be brief.\n?\n")
    policies = {"policy": FakePolicy(AB), "other": other}
    tree = asyncio.run(
        search(
            encode(PROMPT),
            policies,
            FakeScorer(parity),
            FakeTask(),
            prompts={"other": encode(other.prompt)},
            budget=BudgetLimits(simulations=20),
        )
    )
    assert tree.status == "complete", tree.error
    assert tree.usage.prompt_tokens == len(PROMPT) + len(other.prompt)
    assert all(text.startswith(other.prompt) for text, _, _ in other.requests)
    assert any(len(text) > len(other.prompt) for text, _, _ in other.requests)  # it goes on with answers too
    assert tree_from_dict(tree_to_dict(tree)) == tree


def test_self_consistency_asks_the_value_model_only_to_choose_between_policies() -> None:
    def scored(**given: Any) -> int:
        scorer, tree = FakeScorer(parity), new_tree(algorithm="self_consistency", **given)
        asyncio.run(
            Search(tree, {name: FakePolicy(AB) for name in BOTH}, scorer, FakeTask(), clock=lambda: 0.0).run()
        )
        return scorer.scored

    assert scored() == scored(policies=("other",)) == 0
    assert scored(policies=BOTH) > 0


def test_confidence_chooses_no_policy() -> None:
    """One policy is sure of everything, the other of nothing: both draw about as often."""
    policies = {
        "policy": FakePolicy(letters({"a": 1.0}, 1)),
        "other": FakePolicy(letters({chr(200 + i): 0.01 for i in range(100)}, 1)),
    }
    tree = new_tree(
        algorithm="self_consistency", grader="confidence", policies=BOTH, budget=BudgetLimits(simulations=200)
    )
    asyncio.run(Search(tree, policies, None, FakeTask(), clock=lambda: 0.0).run())
    assert tree.usage.by_policy is not None
    assert all(70 <= part.draws <= 130 for part in tree.usage.by_policy.values())
    assert all(part.value is None for part in tree.usage.by_policy.values())


def test_values_of_one_judging_policy_stand_beside_the_scorers_of_another() -> None:
    scorer = FakeScorer(parity)
    policies = {"policy": JudgingFake(AB), "other": FakePolicy(letters({"b": 0.5, "c": 0.5}, 3))}
    tree = new_tree(policies=BOTH, budget=BudgetLimits(simulations=20))
    asyncio.run(Search(tree, policies, scorer, FakeTask(), clock=lambda: 0.0).run())
    assert tree.status == "complete", tree.error
    assert {node.policy for node in tree.nodes[1:]} == set(BOTH)
    assert all(node.value is not None for node in tree.nodes[1:] if node.terminal != "truncated")
    drawn = [node for node in tree.nodes[1:] if node.policy == "other"]
    assert 0 < scorer.scored <= len(drawn) + len(tree.nodes)


def test_one_named_policy_may_list_the_likeliest_tokens_after_its_own_prompt() -> None:
    other = FakePolicy(words, prompt="Be brief.\n?\n")
    run = search(
        encode(PROMPT),
        {"other": other},
        FakeScorer(parity),
        FakeTask(),
        prompts={"other": encode(other.prompt)},
        action=TOKEN,
        expand="step",
        budget=BudgetLimits(simulations=10),
    )
    tree = asyncio.run(run)
    assert tree.status == "complete", tree.error
    assert {node.policy for node in tree.nodes[1:]} == {"other"}
    assert tree.usage.by_policy is not None
    assert tree.usage.by_policy["other"].completion_tokens == tree.usage.completion_tokens == other.generated


# -- failures --------------------------------------------------------------------------------------------------------


def first_asked(seed: int) -> str:
    tree = new_tree(policies=BOTH, seed=seed)
    return PolicyBandit(tree).choose(tree.root, lambda name: 1.0)


@pytest.mark.parametrize("dies", [0, 2])
@pytest.mark.parametrize("params", SEVERAL, ids=described)
def test_a_policy_that_dies_draws_no_more_and_the_search_goes_on(params: dict[str, Any], dies: int) -> None:
    """It is asked first, and dies at once or later."""
    policies = pair(params)
    policies["other"].die_after = dies
    seed = next(seed for seed in range(99) if first_asked(seed) == "other")
    budget = BudgetLimits(simulations=25, tokens=250)
    tree = found(policies, budget=budget, sampling=SAMPLING, seed=seed, **params)
    assert tree.status == "complete", tree.error
    check_nodes(tree)
    assert tree.usage.by_policy is not None
    if dies == 0 or params["algorithm"] in ("best_of_n", "self_consistency", "beam", "dvts", "dfs"):
        assert tree.usage.by_policy["other"].closed == "EngineDead: the fake engine was told to die"
    assert tree.usage.by_policy["policy"].closed is None
    assert tree.usage.completion_tokens == sum(policy.generated for policy in policies.values()) <= 250


@pytest.mark.parametrize("dying", ["policy", "the last"])
def test_the_served_policy_and_the_last_one_left_end_the_search(dying: str) -> None:
    policies = {name: FakePolicy(AB, die_after=1) for name in (BOTH if dying == "policy" else ("b", "c"))}
    if dying == "policy":
        policies["other"].die_after = None
    tree = found(policies, algorithm="best_of_n")
    assert tree.status == "engine_dead"
    assert tree.error == "EngineDead: the fake engine was told to die"


class Careless(FakePolicy):
    """Forgets a log-probability, so that nothing that it draws can be used."""

    def _draws(self, text: str, sampling: Sampling, seeds: Any) -> Any:
        return [replace(one, logprobs=one.logprobs[1:]) for one in super()._draws(text, sampling, seeds)]


@pytest.mark.parametrize("params", SEVERAL, ids=described)
def test_what_a_policy_has_generated_is_spent_even_if_it_cannot_be_used(params: dict[str, Any]) -> None:
    policies = {"policy": FakePolicy(AB), "other": Careless(letters({"c": 1.0}, 1))}
    seed = next(seed for seed in range(99) if first_asked(seed) == "other")
    tree = found(policies, budget=BudgetLimits(tokens=200), sampling=SAMPLING, seed=seed, **params)
    assert tree.status == "complete", tree.error
    check_nodes(tree)
    assert tree.usage.by_policy is not None
    other = tree.usage.by_policy["other"]
    assert "log-probs" in str(other.closed)
    assert other.completion_tokens == policies["other"].generated > 0
    assert tree.usage.completion_tokens == sum(policy.generated for policy in policies.values()) <= 200


def test_at_the_budgets_end_another_draws_with_what_is_left() -> None:
    policies = {"policy": FakePolicy(letters({"a": 1.0}, 99)), "other": Careless(letters({"c": 1.0}, 1))}
    seed = next(seed for seed in range(99) if first_asked(seed) == "other")
    budget = BudgetLimits(tokens=2 * SAMPLING.max_tokens)
    tree = found(policies, budget=budget, sampling=SAMPLING, seed=seed, algorithm="best_of_n", parallel=1)
    assert tree.status == "complete", tree.error
    spent = policies["other"].generated
    assert [len(node.tokens) for node in tree.nodes[1:2]] == [SAMPLING.max_tokens - spent]
    assert tree.usage.completion_tokens == spent + policies["policy"].generated <= budget.tokens


def test_a_policy_that_fails_with_all_that_was_set_aside_ends_the_search_within_its_budget() -> None:
    policies = {"policy": FakePolicy(AB), "other": Careless(letters({"c": 1.0}, 99))}
    seed = next(seed for seed in range(99) if first_asked(seed) == "other")
    budget = BudgetLimits(tokens=2 * SAMPLING.max_tokens)
    tree = found(policies, budget=budget, sampling=SAMPLING, seed=seed, algorithm="best_of_n", parallel=1)
    assert tree.status == "failed"
    assert "log-probs" in str(tree.error)
    assert tree.usage.completion_tokens == policies["other"].generated == SAMPLING.max_tokens


@pytest.mark.anyio
async def test_aborted_draws_count_for_the_policy_that_made_them() -> None:
    gate = asyncio.Event()
    policies = {name: FakePolicy(AB, gate=gate) for name in BOTH}
    tree = new_tree(policies=BOTH, algorithm="best_of_n", parallel=8)
    run = Search(tree, policies, FakeScorer(parity), FakeTask(), clock=lambda: 0.0)
    task = asyncio.create_task(run.run())
    for _ in range(20):
        await asyncio.sleep(0)
    assert sum(policy.running for policy in policies.values()) == 8
    run.stop("cancelled", "client")
    await task
    assert tree.usage.by_policy is not None
    assert {name: part.completion_tokens for name, part in tree.usage.by_policy.items()} == {
        name: policy.aborted for name, policy in policies.items()
    }
    assert issubclass(SampleAborted, asyncio.CancelledError)  # which is no failure of a policy
    assert all(part.closed is None for part in tree.usage.by_policy.values())


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "field", "says"),
    [
        ({"policies": ("policy", "away")}, "policies", "'away' is none of policy, other"),
        ({"policies": ("policy", "policy")}, "policies", "each once"),
        ({"policies": tuple(f"p{i}" for i in range(9))}, "policies", "at most 8"),
        ({"policies": ("Policy",)}, "policies", "is no name"),
        ({"policies": BOTH, "select": "puct", "prior": "mean_logprob"}, "prior", "those of several policies"),
        ({"policies": BOTH, "expand": "step", "action": TOKEN}, "policies", "exact probabilities"),
        ({"policies": BOTH, "action": REFINE}, "policies", "'other' has a prompt of its own"),
    ],
)
def test_what_means_nothing_is_refused_by_name(params: dict[str, Any], field: str, says: str) -> None:
    policies = {name: FakePolicy(AB) for name in BOTH}
    prompts = {"other": encode(PROMPT)}
    with pytest.raises(ParamError, match=says) as refused:
        asyncio.run(
            search(
                encode(PROMPT),
                policies,
                FakeScorer(parity),
                FakeTask(),
                prompts=prompts,
                reviser=FakeReviser(),
                **params,
            )
        )
    assert refused.value.field == field


def test_a_policy_alone_must_be_there() -> None:
    with pytest.raises(ParamError, match="'policy' is none of other"):
        Search(new_tree(), {"other": FakePolicy(AB)}, FakeScorer(parity), FakeTask(), clock=lambda: 0.0)
    assert search_params(policies=BOTH).policies == BOTH


# -- what it is good for ---------------------------------------------------------------------------------------------


def speaker(good: bool) -> Rule:
    """Answers of four steps, `r` right and `w` wrong: a good speaker writes 7 of 10 steps right, a bad one 2 of 10."""
    right = 0.7 if good else 0.2
    return letters({"r": right, "w": 1 - right}, 4)


def solved(problem: int, names: tuple[str, ...], tokens: int) -> bool:
    """Tell whether a search answers a problem right: `policy` is good on even problems, `other` on odd ones. The value
    model knows what a step is worth, but not which policy is good at what."""
    policies = {
        "policy": FakePolicy(speaker(problem % 2 == 0)),
        "other": FakePolicy(speaker(problem % 2 == 1)),
    }
    task = FakeTask(lambda text: text == "r\n" * 4)
    tree = found(
        {name: policies[name] for name in names},
        task,
        value=lambda text: 0.0 if "w" in text else 0.2 + 0.2 * text.count("r"),
        algorithm="best_of_n",
        budget=BudgetLimits(tokens=tokens),
        sampling=Sampling(max_tokens=9),
        seed=problem,
    )
    return tree.answer is not None and tree.answer.text == "r\n" * 4


def test_two_policies_together_are_above_either_alone_at_equal_tokens() -> None:
    """Each alone is good on half of the problems. Out of 200, standard errors are at most 7, and the margin is 30."""
    problems, tokens = range(200), 90
    alone = [sum(solved(i, (name,), tokens) for i in problems) for name in BOTH]
    joint = sum(solved(i, BOTH, tokens) for i in problems)
    print(f"right of 200 at {tokens} tokens: policy {alone[0]}, other {alone[1]}, both {joint}")
    assert joint > max(alone) + 30
