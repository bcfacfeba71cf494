"""Draws without replacement: where they leave what is known, what then comes out, and what it stands for."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from departing_fake import DepartingFake, next_tokens
from fakes import decode, encode
from ramify.search.budget import Budget
from ramify.search.builder import TreeBuilder
from ramify.search.codec import tree_to_dict
from ramify.search.departures import MOST_BARRED, Known, depart, stand_for
from ramify.search.records import Action, BudgetLimits, Sampling
from search_worlds import CHUNK, REFINE, STEP, check, grow, new_tree, ran

ACTIONS: Mapping[str, float] = {
    "aa\n": 0.4,
    "ab\n": 0.2,
    "b\n": 0.15,
    "caa\n": 0.15,
    "cab\n": 0.07,
    "d\n": 0.03,
}
"""The first actions that the policy may take, some with a beginning in common."""


def rule(text: str) -> Mapping[str, float]:
    return ACTIONS if text.count("\n") < 2 else {"": 1.0}


def known(*texts: str) -> list[Known]:
    """Actions as the policy draws them, with the probability of each token."""
    found = []
    for text in texts:
        chances = [next_tokens(rule, "", text[:i])[token] for i, token in enumerate(encode(text))]
        found.append(Known(encode(text), [math.log(p) for p in chances]))
    return found


def test_where_nothing_is_known_nothing_is_left_out():
    assert depart([], 9, random.Random(0)) is None


def test_where_nearly_everything_is_known_nothing_is_left_out():
    assert depart(known("aa\n", "ab\n", "b\n", "caa\n", "cab\n"), 9, random.Random(0)) is not None
    assert depart(known(*ACTIONS), 9, random.Random(0)) is None


def test_a_draw_never_goes_along_to_the_end_of_what_is_known():
    for seed in range(200):
        left = depart(known("aa\n", "b\n"), 9, random.Random(seed))
        assert left is not None
        said = decode(left.tokens)
        assert {said + decode([token]) for token in left.barred} in ({"a", "b"}, {"aa"})
        assert left.mass == pytest.approx(0.75 if not said else 0.4 / 0.6)
        assert left.logprobs == pytest.approx([math.log(0.6)] * len(said))


@pytest.mark.parametrize("texts", [("aa\n",), ("aa\n", "caa\n"), ("aa\n", "ab\n", "b\n"), ("cab\n", "d\n")])
def test_what_comes_out_is_as_likely_as_the_policy_finds_it_among_what_is_new(texts: tuple[str, ...]):
    draws, policy = 3_000, DepartingFake(rule)
    drawn = Counter[str]()
    for seed in range(draws):
        rng = random.Random(seed)
        left = depart(known(*texts), 9, rng)
        one = policy._token_by_token("", Sampling(stop=("\n",)), rng, left)
        drawn[one.text] += 1
        assert sum(one.logprobs) == pytest.approx(math.log(ACTIONS[one.text]))  # the policy's own
    new = {text: p for text, p in ACTIONS.items() if text not in texts}
    assert drawn.keys() == new.keys()
    for text, p in new.items():
        share = p / sum(new.values())
        assert drawn[text] / draws == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / draws))


def test_no_more_is_taken_over_than_there_is_room_for():
    def taken(most: int) -> set[int]:
        left = [depart(known("caa\n"), most, random.Random(seed)) for seed in range(200)]
        return {len(one.tokens) for one in left if one is not None}

    assert taken(9) == {0, 2}  # after "c" comes "a", whatever follows
    assert taken(1) == {0}  # after "c" nothing but "a" is left: a draw that came as far leaves nothing out
    assert taken(0) == {0}


def test_log_probabilities_that_were_computed_apart_need_not_agree():
    """Two draws in flight together each have their own of a beginning that they share."""
    rng = random.Random(0)
    for seed in range(2_000):
        apart = [
            Known(one.tokens, [x + rng.gauss(0, 0.05) for x in one.logprobs])
            for one in known("aa\n", "ab\n", "caa\n", "cab\n")
        ]
        left = depart(apart, 9, random.Random(seed))
        assert left is None or 0 < left.mass < 1


def test_of_more_tokens_than_an_engine_can_leave_out_the_likeliest_are():
    chances = [0.4 / 2 ** (i // 16) / 16 for i in range(200)]
    many = [Known((i, 999), (math.log(p), 0.0)) for i, p in enumerate(chances)]
    left = depart(many, 0, random.Random(0))
    assert left is not None
    assert sorted(left.barred) == list(range(MOST_BARRED))
    assert left.mass == pytest.approx(sum(chances[:MOST_BARRED]))


# -- in a search -------------------------------------------------------------------------------------------------------

NEW: dict[str, Any] = {
    "algorithm": "mcts",
    "action": STEP,
    "replacement": False,
    "answer": "orm_max",
    "parallel": 1,
    "width": 1,
}
SHORT = Sampling(max_tokens=12)


def pairs(text: str) -> Mapping[str, float]:
    """Answers of two lines, each one of 25 pairs of letters."""
    return {f"{a}{b}\n": 1 / 25 for a in "abcde" for b in "vwxyz"} if text.count("\n") < 2 else {"": 1.0}


def test_a_search_without_replacement_repeats_no_action_and_pays_for_no_beginning_twice():
    found = ran(policy=DepartingFake(pairs), budget=BudgetLimits(tokens=150), sampling=SHORT, **NEW)
    check(found)
    tree, usage = found.tree, found.tree.usage
    assert {node.multiplicity for node in tree.nodes} == {1}
    assert sum(node.tokens_spent for node in tree.nodes) == usage.completion_tokens == found.policy.generated
    assert sum(len(node.tokens) for node in tree.nodes) > usage.completion_tokens


def test_with_replacement_they_are_repeated():
    policy = DepartingFake(pairs)
    found = ran(
        policy=policy, budget=BudgetLimits(tokens=150), sampling=SHORT, **{**NEW, "replacement": True}
    )
    check(found)
    assert max(node.multiplicity for node in found.tree.nodes) > 1
    assert not any(policy.departures)


@pytest.mark.parametrize("grader", ["model", "confidence"])
@pytest.mark.parametrize("abandon", [False, True])
def test_an_answer_never_grows_past_its_limit_by_what_is_taken_over(abandon: bool, grader: str):
    """Long beginnings in common, and hardly room for two steps."""

    def long(text: str) -> Mapping[str, float]:
        ends = {f"aaaaaa{x}\n": 1 / 9 for x in "bcdefghij"}
        return ends if text.count("\n") < 3 else {"": 1.0}

    for seed in range(20):
        found = ran(
            policy=DepartingFake(long), value=None, budget=BudgetLimits(tokens=200), sampling=Sampling(max_tokens=20),
            **{**NEW, "action": Action("step", ("\n",), 16), "abandon": abandon, "grader": grader, "seed": seed},
        )  # fmt: skip
        check(found)


@pytest.mark.parametrize("abandon", [False, True])
@pytest.mark.parametrize("action", [STEP, CHUNK, REFINE], ids=lambda action: action.kind)
def test_every_law_holds_without_replacement(action: Any, abandon: bool):
    if action is REFINE and abandon:
        pytest.skip("whole answers are not given up")
    policy = DepartingFake(rule, surplus=1)
    params = {**NEW, "action": action, "abandon": abandon, "parallel": 3, "width": 2, "max_depth": 4}
    found = ran(policy=policy, budget=BudgetLimits(tokens=200), sampling=SHORT, **params)
    check(found)
    assert any(policy.departures)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0, max_tokens=12),
        Sampling(top_p=0.9, max_tokens=12),
        Sampling(top_k=3, max_tokens=12),
    ],
    ids=["greedy", "top_p", "top_k"],
)
def test_draws_from_what_is_cut_off_are_made_with_replacement(sampling: Sampling):
    policy = DepartingFake(rule)
    ran(policy=policy, budget=BudgetLimits(tokens=150), sampling=sampling, **NEW)
    assert not any(policy.departures)


def test_so_are_those_of_a_policy_that_cannot_leave_anything_out():
    policy = DepartingFake(rule, departs=False)
    ran(policy=policy, budget=BudgetLimits(tokens=150), sampling=SHORT, **NEW)
    assert not any(policy.departures)


def test_what_another_policy_has_drawn_is_not_left_out():
    policies = {"policy": DepartingFake(rule), "other": DepartingFake(rule)}
    found = ran(
        policy=policies["policy"], others={"other": policies["other"]}, policies=("policy", "other"),
        budget=BudgetLimits(tokens=200), sampling=SHORT, **NEW,
    )  # fmt: skip
    for name, policy in policies.items():
        own = {node.tokens for node in found.tree.nodes if node.policy == name}
        first = [left for left in policy.departures if left is not None]
        assert first
        for left in first:
            ways = {(*left.tokens, token) for token in left.barred}
            assert all(any(tokens[: len(way)] == way for tokens in own) for way in ways)


# -- what a draw stands for --------------------------------------------------------------------------------------------


def test_likely_draws_stand_for_their_probability_and_rare_ones_share_the_rest():
    assert stand_for([0.9, 0.0001, 0.0001], 3) == pytest.approx([2.7, 0.15, 0.15], rel=0.01)
    assert stand_for([0.001, 0.001], 2) == pytest.approx([1, 1])
    assert stand_for([0.0, 0.0], 2) == pytest.approx([1, 1])
    assert stand_for([0.6, 0.4], 2) == pytest.approx([1.2, 0.8], rel=1e-3)  # everything is known
    assert stand_for([0.2], 4) == pytest.approx([4])


def test_a_mean_over_them_is_the_policys_where_the_plain_one_is_not():
    """The mean of a value over what the policy does, from four distinct actions."""
    worth = {text: float(text in ("aa\n", "caa\n")) for text in ACTIONS}
    true = sum(p * worth[text] for text, p in ACTIONS.items())
    plain, weighted = [], []
    for seed in range(4_000):
        rng, texts = random.Random(seed), list[str]()
        while len(texts) < 4:
            left = [text for text in ACTIONS if text not in texts]
            texts += rng.choices(left, [ACTIONS[text] for text in left])
        draws = stand_for([ACTIONS[text] for text in texts], 4)
        plain.append(sum(worth[text] for text in texts) / 4)
        weighted.append(sum(d * worth[text] for d, text in zip(draws, texts, strict=True)) / 4)
    assert sum(weighted) / 4_000 == pytest.approx(true, abs=0.02)
    assert sum(plain) / 4_000 < true - 0.1


def test_each_policys_draws_stand_beside_its_own_alone():
    tree = new_tree(**NEW, policies=("policy", "other"))
    builder = TreeBuilder(tree, Budget(tree.params.budget, final=0, clock=lambda: 0.0))
    for text, policy, chance in (
        ("a\n", "policy", 0.9),
        ("b\n", "policy", 1e-4),
        ("c\n", "other", 0.9),
        ("d\n", "other", 0.1),
    ):
        child = grow(builder, tree.root, text, policy=policy)
        child.logprobs = (math.log(chance), 0.0)
    builder.finish()
    assert [child.stands_for for child in tree.children(tree.root)] == pytest.approx(
        [*stand_for([0.9, 1e-4], 2), *stand_for([0.9, 0.1], 2)]
    )


def test_a_finished_tree_says_what_its_nodes_stand_for_and_one_with_replacement_does_not():
    tree = ran(policy=DepartingFake(rule), budget=BudgetLimits(tokens=150), sampling=SHORT, **NEW).tree
    children = tree.children(tree.root)
    draws = sum(child.multiplicity for child in children)
    assert sum(child.draws for child in children) == pytest.approx(draws)
    assert [child.prior for child in children] == pytest.approx([child.draws / draws for child in children])
    likeliest = max(children, key=lambda child: sum(child.logprobs))
    assert likeliest.draws > 1
    plain = ran(
        policy=DepartingFake(rule),
        budget=BudgetLimits(tokens=150),
        sampling=SHORT,
        **{**NEW, "replacement": True},
    ).tree
    assert all(node.draws == node.multiplicity for node in plain.nodes)
    assert "stands_for" not in tree_to_dict(plain)["nodes"][1]


def test_an_answers_share_is_the_policys_however_the_search_has_branched():
    """A search whose values lead it to answers that begin with "b" ends there more often than the policy does."""

    def two_lines(text: str) -> Mapping[str, float]:
        if not text:
            return {"aa\n": 0.5, "ac\n": 0.2, "b\n": 0.3}
        return {f"{x}\n": 1 / 16 for x in "jklmnopqrstuvwxy"} if text.count("\n") == 1 else {"": 1.0}

    share, ended, searches = 0.0, 0.0, 100
    for seed in range(searches):
        policy = DepartingFake(two_lines, value=lambda text: 0.9 if text.startswith("b") else 0.1)
        params = {**NEW, "answer": "orm_vote", "seed": seed}
        tree = ran(policy=policy, budget=BudgetLimits(tokens=60), sampling=SHORT, **params).tree
        ends = [tree.nodes[completion.node] for completion in tree.completions]
        led_to = [end for end in ends if tree.text(end).startswith("b")]
        share += sum(map(tree.share, led_to)) / sum(map(tree.share, ends))
        ended += len(led_to) / len(ends)
    assert share / searches == pytest.approx(0.3, abs=0.05)
    assert ended / searches > 0.5
