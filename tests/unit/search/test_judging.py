"""Policies that judge what they write: their values stand in for the scorer's, and a draw that may be given up is one
request."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import FakePolicy, FakeScorer, FakeTask, decode
from ramify.search.budget import Budget
from ramify.search.builder import TreeBuilder
from ramify.search.cutting import SampledAction, cut, given_up_at
from ramify.search.evaluator import Evaluator
from ramify.search.plans import Plan, PlanCost
from ramify.search.protocols import JudgingPolicy
from ramify.search.records import Action, BudgetLimits, Continuation, Hurdle, Sampling, Score, State
from ramify.search.run import Search
from search_worlds import (
    PROMPT,
    STEP,
    JudgingFake,
    World,
    check,
    described,
    encode,
    new_tree,
    parity,
    ran,
    replaced,
    rule_for,
    variants,
    world,
)

ABANDON: dict[str, Any] = {"algorithm": "mcts", "action": STEP, "abandon": True, "parallel": 1, "width": 1}
WASTE = "b\n"


def ab(text: str) -> Mapping[str, float]:
    return {"": 1.0} if text.count("\n") == 3 else {"a\n": 0.5, WASTE: 0.5}


def doubtful(text: str) -> float:
    """One line in two is a waste, and the policy knows."""
    return 0.0 if WASTE in text else 0.5 if text.count("\n") < 3 else 1.0


def judged(rule: Any = ab, value: Any = doubtful, surplus: int = 0, **params: Any) -> World:
    policy = JudgingFake(rule, value=value, surplus=surplus, jitter=params.pop("jitter", None))
    return ran(policy=policy, value=value, **params)


# Told to a scorer


@pytest.mark.parametrize("expand", ["step", "path"])
def test_a_scorer_is_told_where_the_prompt_and_each_action_end(expand: str) -> None:
    asked: list[State] = []

    class Listening(FakeScorer):
        async def score(self, sequences: Sequence[State]) -> list[Score]:  # type: ignore[override]
            asked.extend(sequences)
            return await super().score(sequences)

    tree = new_tree(action=STEP, expand=expand, budget=BudgetLimits(simulations=8))
    asyncio.run(
        Search(tree, FakePolicy(rule_for({})), Listening(parity), FakeTask(), clock=lambda: 0.0).run()
    )
    assert {len(state.ends) for state in asked} >= {2, 3}, "answers of one action and of several"
    for state in asked:
        cuts = [decode(state[a:b]) for a, b in itertools.pairwise((0, *state.ends))]
        assert cuts[0] == PROMPT
        assert all(cut in ("a\n", "b\n", "") for cut in cuts[1:])
        assert state.ends[-1] == len(state)


# Values in place of the scorer


@pytest.mark.parametrize("params", variants(), ids=described)
def test_a_search_grows_the_same_tree_whoever_judges(params: dict[str, Any]):
    # Nothing is given up here, since a policy's draws to the end have other seeds than its draws step by step.
    chosen = {**params, "schedule": "waves", "parallel": 2, "budget": BudgetLimits(simulations=12)}
    chosen.pop("abandon", None)
    rule = rule_for(params)
    by_scorer, by_policy = ran(rule, **chosen), judged(rule, parity, **chosen)
    assert by_policy.tree.nodes == by_scorer.tree.nodes
    assert by_policy.tree.candidates == by_scorer.tree.candidates
    check(by_policy)


def test_values_that_came_with_the_draws_cost_no_sequence():
    params = {**ABANDON, "budget": BudgetLimits(simulations=20)}
    found = judged(**params)
    assert found.scorer.batches == found.tree.usage.scored_sequences == 0
    assert all(node.value is not None for node in found.tree.nodes[1:])
    assert ran(ab, doubtful, **params).tree.usage.scored_sequences > 0


def test_only_what_came_without_a_value_goes_to_the_scorer_and_in_one_batch():
    # the policy cannot say what a finished answer of three lines is worth
    def half_blind(text: str) -> float | None:
        return None if text.count("\n") == 3 else doubtful(text)

    policy = JudgingFake(ab, value=half_blind)
    found = ran(policy=policy, value=doubtful, algorithm="mcts", action=STEP, width=4,
                parallel=1, budget=BudgetLimits(simulations=1))  # fmt: skip
    asked = [node for node in found.tree.nodes[1:] if node.depth >= 3]
    assert found.scorer.batches == 1
    assert found.tree.usage.scored_sequences == len(asked) > 1
    assert [node.value for node in asked] == [doubtful(found.tree.text(node)) for node in asked]


def test_a_verifier_stays_the_only_judge_of_complete_answers():
    found = judged(**{**ABANDON, "abandon": False}, grader="verifier", early_stop="off",
                   budget=BudgetLimits(simulations=6), task=FakeTask(lambda text: True))  # fmt: skip
    complete = found.tree.complete()
    assert [(node.value, node.outcome) for node in complete] == [(None, 1.0)] * len(complete)
    assert all(node.value is not None for node in found.tree.nodes[1:] if node.terminal is None)


def test_a_vote_by_majority_over_whole_answers_keeps_no_values():
    found = judged(algorithm="self_consistency", budget=BudgetLimits(simulations=4))
    assert all(node.value is None for node in found.tree.nodes)


# Draws given up


def continuation(text: str, *values: float | None, finish: Any = "abandoned") -> Continuation:
    size = len(text)
    ends = tuple(range(1, size + 1))
    return Continuation(encode(text), text, (0.0,) * size, ends, finish, "r", values)


def kept(drawn: Continuation, action: Action = STEP) -> list[SampledAction]:
    actions = cut(drawn, action)
    return actions[: given_up_at(actions, action)]


def test_an_action_is_worth_what_the_policy_said_of_its_last_token():
    first, second = cut(continuation("a\nb\n", 0.1, 0.2, 0.3, 0.4, finish="length"), STEP)
    assert (first.value, second.value) == (0.2, 0.4)


@pytest.mark.parametrize(
    ("drawn", "action", "texts"),
    [
        (continuation("a\nb\n", 0.9, 0.9, 0.1, 0.1), STEP, ["a\n", "b\n"]),
        # the surplus is a part of a step, and the step that ends it was not judged
        (continuation("a\nbc", 0.9, 0.1, 0.1, 0.1), STEP, ["a\n"]),
        (continuation("a\n\n", 0.9, 0.1, None), STEP, ["a\n"]),
        # a step that ends at its cap is whole
        (continuation("abcd", 0.9, 0.9, 0.9, 0.1), STEP, ["abcd"]),
        (continuation("abc", 0.9, 0.1, 0.1), Action("chunk", (), 2), ["ab"]),
        (continuation("ab", 0.1, 0.1), STEP, []),
    ],
)
def test_a_draw_that_was_given_up_counts_as_far_as_the_last_whole_action_that_was_judged(
    drawn: Continuation, action: Action, texts: list[str]
):
    assert [action.text for action in kept(drawn, action)] == texts


def searched(surplus: int = 0, seed: int = 3, **params: Any) -> World:
    return judged(surplus=surplus, seed=seed, schedule="waves",
                  **{**ABANDON, "budget": BudgetLimits(simulations=30), **params})  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_a_draw_that_may_be_given_up_is_one_request(seed: int):
    found = searched(seed=seed)
    assert found.policy.given_up > 0
    assert len(found.policy.requests) == found.tree.usage.simulations
    check(found)


def test_the_end_of_a_draw_that_was_given_up_ends_no_answer_and_backs_its_value_up():
    found = searched()
    broken = [n for n in found.tree.nodes if not n.children and n.terminal is None]
    assert broken
    for node in broken:
        assert node.visits >= 1
        assert node.value_sum == pytest.approx(node.visits * (node.value or 0.0))
    assert found.tree.truncated == 0


def test_what_was_written_past_the_end_is_counted_and_is_not_in_the_tree():
    exact, late = searched(), searched(surplus=1)
    assert late.policy.past > 0
    assert late.tree.nodes == exact.tree.nodes
    assert late.tree.usage.completion_tokens == exact.tree.usage.completion_tokens + late.policy.past
    check(late)


def test_a_draw_given_up_before_its_first_action_ended_fails_the_search():
    class Hasty(JudgingFake):
        async def write_on(self, *args: Any, **kwargs: Any) -> list[Continuation]:
            return [
                replaced(one, token_ids=(97,), text="a", logprobs=(0.0,), ends=(1,), values=(0.1,),
                         finish="abandoned")
                for one in await super().write_on(*args, **kwargs)
            ]  # fmt: skip

    found = ran(policy=Hasty(ab, value=doubtful), **ABANDON, budget=BudgetLimits(simulations=5))
    assert found.tree.status == "failed"
    assert found.tree.error == (
        "RuntimeError: the policy gave a draw up before it had judged one whole action of it"
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [((0.5,), "1 values for 4 tokens"), ((0.5, 0.5, 0.5, 1.5), "the value 1.5, which is outside [0, 1]")],
)
def test_values_that_cannot_be_used_fail_the_search(values: tuple[float, ...], said: str):
    class Wrong(FakePolicy):
        def _draws(self, *args: Any) -> list[Continuation]:
            return [replaced(continuation("a\nb\n"), values=values, finish="length")]

    found = ran(policy=Wrong(ab), algorithm="best_of_n", budget=BudgetLimits(simulations=1))
    assert found.tree.error == f"RuntimeError: the policy gave {said}"


# One request against a loop of steps


def abcde(text: str) -> Mapping[str, float]:
    """One answer of five lines."""
    return {"": 1.0} if len(text) == 10 else {f"{'abcde'[len(text) // 2]}\n": 1.0}


def drawn(policy: FakePolicy, value: Any, hurdle: Hurdle, n: int, sampling: Sampling) -> tuple[Any, int]:
    tree = new_tree(algorithm="mcts", action=STEP, abandon=True, sampling=sampling)
    builder = TreeBuilder(tree, Budget(tree.params.budget, final=0, clock=lambda: 0.0))
    evaluator = Evaluator(builder, {"policy": policy}, FakeScorer(value), FakeTask(), judges_steps=True)
    plan, cost = Plan(1, (tree.root,), "path", n, sampling.max_tokens, hurdle=hurdle), PlanCost()
    return asyncio.run(evaluator.evaluate(plan, 0, cost)), cost.tokens


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    values=st.lists(st.floats(0, 1), min_size=11, max_size=11),
    rate=st.floats(0, 0.2),
    mean_length=st.integers(1, 12),
    n=st.integers(1, 3),
    sampling=st.builds(Sampling, max_tokens=st.integers(1, 12), stop=st.sampled_from([(), ("c",)])),
)
def test_one_request_and_a_loop_of_steps_draw_the_same(
    values: list[float], rate: float, mean_length: int, n: int, sampling: Sampling
):
    hurdle = Hurdle(rate, mean_length)

    def value(text: str) -> float:
        return values[len(text)]

    judging = JudgingFake(abcde, value=value)
    whole, spent = drawn(judging, value, hurdle, n, sampling)
    assert (whole, spent) == drawn(FakePolicy(abcde), value, hurdle, n, sampling)
    assert len(judging.requests) == 1


# The laws


def test_what_judges_and_what_does_not_are_told_apart():
    assert isinstance(JudgingFake(ab), JudgingPolicy)
    assert not isinstance(FakePolicy(ab), JudgingPolicy)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    tokens=st.none() | st.integers(12, 120),
    nodes=st.none() | st.integers(1, 60),
    surplus=st.integers(0, 3),
    commit=st.sampled_from(["root", "step"]),
    parallel=st.sampled_from([1, 5]),
    seed=st.integers(0, 2**32),
)
def test_a_tree_with_draws_given_up_keeps_the_laws(
    tokens: int | None, nodes: int | None, surplus: int, commit: str, parallel: int, seed: int
):
    found = searched(
        surplus, seed, commit=commit, parallel=parallel, sampling=Sampling(max_tokens=7),
        budget=BudgetLimits(simulations=24, tokens=tokens, nodes=nodes), jitter=random.Random(seed),
    )  # fmt: skip
    check(found)
    assert found.tree.status == "complete"


@pytest.mark.anyio
async def test_what_a_cancelled_draw_had_generated_is_counted():
    gate = asyncio.Event()
    gate.set()

    class Late(JudgingFake):
        async def write_on(self, *args: Any, **kwargs: Any) -> list[Continuation]:
            gate.clear()  # the first draw that may be given up stays under way
            asyncio.get_running_loop().call_soon(found.search.stop, "cancelled", "client")
            return await super().write_on(*args, **kwargs)

    policy = Late(ab, value=doubtful, gate=gate)
    found = world(policy=policy, value=doubtful, **ABANDON, budget=BudgetLimits(simulations=50))
    await found.run()
    assert found.tree.status == "cancelled"
    assert policy.aborted == 1
    assert found.tree.answer is not None
    check(found)
