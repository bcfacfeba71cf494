"""Sequential Halving and completed-Q selection, worked by hand."""

from __future__ import annotations

import random

import pytest

from fakes import letters
from ramify.search.algorithms.gumbel import Gumbel
from ramify.search.budget import Budget
from ramify.search.builder import TreeBuilder
from ramify.search.records import Action, BudgetLimits, Sampling
from search_worlds import ListingPolicy, World, grow, new_tree, ran

LADDER = {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6, "e": 0.5, "f": 0.4, "g": 0.3, "h": 0.2}
"""The value of an answer, by its first letter and whatever comes after."""
ENDLESS = 200


def halving(considered: int, limits: BudgetLimits, max_tokens: int = 400) -> World:
    """One simulation at a time over a root whose draws are `a`, `b`, `c`, …, each once; every line has two tokens, and
    every later expansion draws one line."""
    return ran(
        value=lambda text: LADDER[text[0]],
        policy=ListingPolicy(letters(dict.fromkeys(LADDER, 0.125), ENDLESS)),
        algorithm="gumbel",
        expand="step",
        considered=considered,
        width=1,
        parallel=1,
        max_depth=ENDLESS,
        action=Action(max_tokens=2),
        sampling=Sampling(max_tokens=max_tokens),
        budget=limits,
    )


def visits(found: World) -> dict[str, int]:
    return {node.text.strip(): node.visits for node in found.tree.children(found.tree.root)}


def test_eight_actions_are_halved_in_three_equal_phases_of_simulations():
    # 24 simulations, ⌈log₂ 8⌉ = 3 phases ending at 8, 16 and 24. Simulation 1 expands the root.
    # 2 to 8: seven visits, one each for a to g.   Kept: a b c d.
    # 9 to 16: eight visits, two each: 3 3 3 3.     Kept: a b.
    # 17 to 24: eight visits, four each: 7 7.
    found = halving(8, BudgetLimits(simulations=24))
    assert visits(found) == {"a": 7, "b": 7, "c": 3, "d": 3, "e": 1, "f": 1, "g": 1, "h": 0}
    assert found.tree.root.visits == 24
    assert found.tree.stop_reason == "budget.simulations"


def test_five_actions_are_halved_to_three_and_to_two():
    # 30 simulations, ⌈log₂ 5⌉ = 3 phases ending at 10, 20 and 30.
    # 2 to 10: nine visits: a b c d 2, e 1.          Kept: ⌈5/2⌉ = 3, a b c.
    # 11 to 20: ten visits in turn, a first: 6 5 5.  Kept: ⌈3/2⌉ = 2, a b.
    # 21 to 30: ten visits: b, then a and b in turn: 11 10.
    found = halving(5, BudgetLimits(simulations=30))
    assert visits(found) == {"a": 11, "b": 10, "c": 5, "d": 2, "e": 1}


def test_phases_end_by_tokens_where_tokens_are_the_nearest_limit():
    # 300 tokens, three phases ending at 100 and 200; a visit costs 2, the root 16; 76 are held back for the end.
    # To 100: 84/2 = 42 visits over eight: 5 each and one more for a and b.
    # To 200: 50 visits over a b c d, which have 6 6 5 5: 72/4 = 18 each.
    # To 300 - 76 = 224: 12 visits over a and b: 24 each.
    found = halving(8, BudgetLimits(simulations=10_000, tokens=300), max_tokens=76)
    assert visits(found) == {"a": 24, "b": 24, "c": 18, "d": 18, "e": 5, "f": 5, "g": 5, "h": 5}
    # the search itself spent 224, and the final rollout wrote a's line of 25 steps on to 76 tokens: 26 more
    assert found.tree.usage.completion_tokens == 250


def test_what_is_only_set_aside_ends_no_phase():
    # Up to eight actions, three phases, the first to end at 200 of 600 tokens. Four plans at once set 4 · 60 aside but
    # write 5 each at most: were those counted as spent, the first phase would have ended before its first visit.
    found = ran(
        letters(dict.fromkeys("abcdefghijklmnop", 1 / 16), 2),
        lambda text: 0.5,
        algorithm="gumbel",
        parallel=4,
        sampling=Sampling(max_tokens=60),
        budget=BudgetLimits(simulations=10_000, tokens=600),
        schedule="waves",
    )
    tree = found.tree
    considered = [tree.text(node) for node in tree.children(tree.root)]
    early = [c.node for c in tree.completions if c.simulation > 1 and c.tokens <= 200]
    visited = [tree.text(tree.nodes[node])[:2] for node in early]
    assert len(considered) > 5
    assert min(visited.count(action) for action in considered) >= 3


def by_hand(a: float, b: float, *, a_visits: int, **params: float) -> tuple[Gumbel, str]:
    """The choice below the root between `a`, worth `a` in `a_visits` visits, and `b`, never tried and by its own
    value worth `b`."""
    tree = new_tree(algorithm="gumbel", expand="step", **params)
    builder = TreeBuilder(tree, Budget(tree.params.budget, final=0, clock=lambda: 0.0))
    top = grow(builder, tree.root, "x", value=0.5)
    grow(builder, top, "a", visits=a_visits, value_sum=a * a_visits, value=0.1, prior=0.5)
    grow(builder, top, "b", value=b, prior=0.5)
    gumbel = Gumbel(builder, random.Random(0))
    arm = gumbel.choose(top)
    assert arm is not None
    assert arm.node is not None
    return gumbel, arm.node.text


def test_below_the_root_visits_follow_the_policy_improved_by_completed_q():
    # c_visit = c_scale = 1, max N = 1: σ(q) = 2q. a was visited once: π'(a) - 1/(1 + 1) against π'(b) - 0.
    # b worth 0.1: σ 1.8 and 0.2, π' = 0.832, 0.168: 0.332 > 0.168, so a.
    # b worth 0.6: σ 1.8 and 1.2, π' = 0.646, 0.354: 0.146 < 0.354, so b. Its own value counts, not 0 and not the mean.
    assert by_hand(0.9, 0.1, a_visits=1, c_visit=1, c_scale=1)[1] == "a"
    assert by_hand(0.9, 0.6, a_visits=1, c_visit=1, c_scale=1)[1] == "b"


def test_sigma_grows_with_the_most_visits_and_the_scale():
    # eq. 8: (50 + 3)·0.1·0.5
    gumbel, _ = by_hand(0.9, 0.1, a_visits=1, c_visit=50, c_scale=0.1)
    assert gumbel._sigma(0.5, 3) == pytest.approx(2.65)


def test_visits_in_flight_make_the_next_choice_go_elsewhere():
    tree = new_tree(algorithm="gumbel", expand="step", c_visit=1)
    builder = TreeBuilder(tree, Budget(tree.params.budget, final=0, clock=lambda: 0.0))
    a = grow(builder, tree.root, "a", value=0.6, prior=0.5, in_flight=2)
    b = grow(builder, tree.root, "b", value=0.5, prior=0.5)
    # max N = 0: σ(q) = q; π' = 0.525, 0.475; a has two of two in flight: 0.525 - 2/3 < 0.475
    arm = Gumbel(builder, random.Random(0)).choose(tree.root)
    assert arm is not None
    assert arm.node is b
    assert a.visits == 0


def test_the_logit_of_a_sampled_action_is_the_log_of_how_often_it_was_drawn():
    # with all values equal, what was drawn more often is kept: σ cancels
    tree = new_tree(algorithm="gumbel", expand="step", considered=8)
    builder = TreeBuilder(tree, Budget(tree.params.budget, final=0, clock=lambda: 0.0))
    for text, m in {"a": 1, "b": 5, "c": 2}.items():
        grow(builder, tree.root, text, value=0.5, multiplicity=m)
    builder.set_priors(tree.root)
    gumbel = Gumbel(builder, random.Random(0))
    gumbel._consider(tree.children(tree.root))
    assert [node.text for node in gumbel.candidates or []] == ["b", "c", "a"]


def test_the_logits_of_enumerated_tokens_are_their_own():
    # "b" is likelier than "a" and worth as much: σ cancels and the one action kept must be "b"
    found = ran(
        lambda text: {"b": 0.6, "a": 0.4} if len(text) < 30 else {"": 1.0},
        lambda text: 0.5,
        algorithm="gumbel",
        expand="step",
        action=Action("token", ()),
        considered=2,
        width=1,
        parallel=1,
        budget=BudgetLimits(simulations=9),
    )
    # one phase: both are visited in turn, the likelier first: 8 visits, 4 each
    root = found.tree.root
    assert [(n.text, n.visits) for n in found.tree.children(root)] == [("b", 4), ("a", 4)]
    assert [round(n.prior, 6) for n in found.tree.children(root)] == [0.6, 0.4]


def test_a_finished_answer_takes_no_place_among_the_considered():
    # "x" ends at once and is the best; the budget still goes to the three that can be written on
    found = ran(
        value=lambda text: {"x": 1.0, "a": 0.9, "b": 0.8, "c": 0.7}[text[0]],
        policy=ListingPolicy(
            lambda text: {"x\n": 0.25, "a\n": 0.25, "b\n": 0.25, "c\n": 0.25} if not text else {"a\n": 1.0}
        ),
        algorithm="gumbel",
        expand="step",
        considered=4,
        width=1,
        parallel=1,
        max_depth=ENDLESS,
        sampling=Sampling(stop=("x\n",), max_tokens=400),
        budget=BudgetLimits(simulations=13),
    )
    assert visits(found) == {"x": 0, "a": 5, "b": 5, "c": 2}
    assert found.tree.answer is not None
    assert found.tree.answer.final == "x"


def test_gumbel_noise_changes_which_actions_are_considered_and_only_where_asked():
    def first(scale: float, seed: int) -> str:
        tree = new_tree(algorithm="gumbel", expand="step", considered=1, gumbel_scale=scale, seed=seed)
        builder = TreeBuilder(tree, Budget(tree.params.budget, final=0, clock=lambda: 0.0))
        for text in "abcd":
            grow(builder, tree.root, text, value=0.5)
        builder.set_priors(tree.root)
        gumbel = Gumbel(builder, random.Random(0))
        gumbel._consider(tree.children(tree.root))
        (kept,) = gumbel.candidates or []
        return kept.text

    assert {first(0.0, seed) for seed in range(20)} == {"a"}
    assert {first(1.0, seed) for seed in range(40)} == set("abcd")


def test_gumbels_root_is_judged_by_a_rollout_where_rollouts_judge():
    found = ran(
        algorithm="gumbel",
        expand="step",
        leaf="rollout",
        width=2,
        considered=3,
        budget=BudgetLimits(simulations=1),
    )
    step_draws, rollout = found.policy.requests
    assert (step_draws[2], rollout[2]) == (3, 1)
    assert found.tree.root.visits == 1
    (completion,) = found.tree.completions
    assert found.tree.root.value_sum == found.tree.nodes[completion.node].value
