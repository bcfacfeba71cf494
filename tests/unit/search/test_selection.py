"""Selection by hand: PUCT, visits in flight, Thompson's Beta, "draw afresh" as an arm, and the priors."""

from __future__ import annotations

import random
from statistics import fmean, pvariance

import pytest

from ramify.search.algorithms.mcts import Mcts
from ramify.search.budget import Budget
from ramify.search.builder import TreeBuilder
from ramify.search.plans import PlanResult
from ramify.search.selection import (
    Arm,
    arms,
    best,
    priors,
    pseudo_visits,
    puct_scores,
    softmax,
    thompson_scores,
)
from ramify.search.tree import Node, Tree
from search_worlds import grow, new_tree

STEADY = {"c_init": 1.0, "c_base": 1e9}
"""c(s) = 1 to eight digits, whatever the visits."""


def arm(prior: float, model: float = 0.5, *, n: int = 0, o: int = 0, w: float = 0.0) -> Arm:
    return Arm(None, n, o, w, model, prior)


def bandit(values: dict[str, float], **params: object) -> tuple[Mcts, dict[str, Node]]:
    """A root with one child for each value, all equally likely and none visited."""
    tree = new_tree(algorithm="mcts", expand="step", **{"select": "puct", **STEADY, **params})
    builder = TreeBuilder(tree, Budget(tree.params.budget, final=0, clock=lambda: 0.0))
    children = {name: grow(builder, tree.root, name, value=value) for name, value in values.items()}
    builder.set_priors(tree.root)
    return Mcts(builder, random.Random(0)), children


def choice(mcts: Mcts) -> Node:
    chosen = mcts.choose(mcts.tree.root)
    assert chosen is not None
    assert chosen.node is not None
    return chosen.node


def test_puct_adds_exploration_to_the_mean_of_landed_visits():
    # Σn = 3 + 1 = 4, c = 1, so c·√Σn = 2
    # a: Q = 1/2, U = 0.5·2/(1 + 2);  b: Q = 0.8/2 with one of its two visits in flight, U = 0.3·2/3
    # c: never tried, so its own value 0.4, U = 0.2·2/1
    choices = [arm(0.5, n=2, w=1.0), arm(0.3, n=1, o=1, w=0.8), arm(0.2, 0.4)]
    assert puct_scores(choices, 1.0, 1e9) == pytest.approx([0.5 + 1 / 3, 0.4 + 0.2, 0.4 + 0.4])


def test_puct_explores_a_node_never_visited_as_if_it_had_been_once():
    # √max(1, 0) = 1: without it an unvisited node would ignore its priors
    assert puct_scores([arm(0.75, 0.2), arm(0.25, 0.2)], 2.0, 1e9) == pytest.approx([1.7, 0.7])


def test_pucts_exploration_grows_with_the_logarithm_of_visits():
    # c_base = 1, Σn = 2: c = 0.5 + ln((2 + 1 + 1)/1) = 0.5 + 2·ln 2 = 1.886294; U = c·1·√2/(1 + 2)
    (score,) = puct_scores([arm(1.0, n=2, w=0.0)], 0.5, 1.0)
    assert score == pytest.approx(1.886294 * 1.414214 / 3, rel=1e-6)


def test_a_bandit_is_visited_as_often_as_puct_says():
    # P = 1/2 each, c = 1. Visit k chooses by q + ½·√max(1, k-1)/(1 + n), worked out for a = 0.8, b = 0.1:
    # 1: a 1.300, b 0.600   2: a 1.050, b 0.600   3: a 1.036, b 0.807   4: a 1.017, b 0.966
    # 5: a 1.000, b 1.100   6: a 1.024, b 0.659   7: a 1.004, b 0.712   8: a 0.989, b 0.761
    values = {"a": 0.8, "b": 0.1}
    mcts, children = bandit(values)
    visited = ""
    for _ in range(8):
        node = choice(mcts)
        visited += node.text
        mcts.builder.back_up([mcts.tree.root, node], values[node.text])
    assert visited == "aaaabaaa"
    assert (children["a"].visits, children["b"].visits, mcts.tree.root.visits) == (7, 1, 8)


def test_visits_in_flight_count_as_lost_and_repel():
    # nothing landed. 1: a 0.8 + ½, b 0.7 + ½. Then a: (0 won of 1) + ½·1/2 = 0.25 against b 1.2.
    # Then Σn = 2: a and b both 0 + ½·1.414/2, c 0.1 + ½·1.414/1 would win: here a, the earlier of equals
    mcts, children = bandit({"a": 0.8, "b": 0.7})
    chosen = []
    for _ in range(3):
        chosen.append(choice(mcts))
        chosen[-1].in_flight += 1
    assert [node.text for node in chosen] == ["a", "b", "a"]
    assert children["a"].visits == 0


@pytest.mark.parametrize("landed", [0, 1, 4])
def test_one_more_visit_in_flight_never_makes_an_arm_more_attractive(landed: int):
    others = [arm(0.5, n=3, w=2.0)]
    for value in (0.0, 0.5, 1.0):
        scores = [
            puct_scores([arm(0.5, value, n=landed, o=o, w=landed * value), *others], 1.25, 19652)
            for o in (0, 1, 2)
        ]
        lead = [mine - other for mine, other in scores]
        assert lead == sorted(lead, reverse=True)


def test_the_children_of_an_unjudged_child_are_worth_what_the_parent_is():
    tree = new_tree()
    root = tree.root
    root.value = 0.3
    unjudged = tree.add(root)
    graded = tree.add(root, outcome=1.0, terminal="eos")
    assert [a.q for a in arms(root, [unjudged, graded], fresh=False, revisit=True)] == [0.3, 1.0]
    root.value = None
    assert arms(root, [unjudged], fresh=False, revisit=True)[0].q == 0.5


def test_drawing_afresh_is_an_arm_with_its_own_visits_and_the_nodes_value():
    tree = new_tree()
    node = tree.add(tree.root, value=0.6, fresh_visits=3, fresh_value_sum=1.5, expanding=1)
    child = tree.add(node, multiplicity=3, prior=1.0, visits=3, value_sum=1.5, value=0.7)
    down, fresh = arms(node, [child], fresh=True, revisit=False)
    assert fresh == Arm(None, 3, 1, 1.5, 0.6, 0.25)  # one more draw after three: 1/(3 + 1)
    assert down.prior == 0.75


def test_finished_and_pruned_children_are_no_arms_where_one_can_draw_afresh():
    tree = new_tree()
    finished = tree.add(tree.root, terminal="eos", value=0.9)
    pruned = tree.add(tree.root, pruned=True)
    open_ = tree.add(tree.root)
    everyone = [finished, pruned, open_]
    assert [a.node for a in arms(tree.root, everyone, fresh=True, revisit=False)] == [open_, None]
    assert [a.node for a in arms(tree.root, everyone, fresh=False, revisit=True)] == [finished, open_]


def test_thompson_draws_from_the_beta_of_the_prior_and_the_visits():
    # κ = 2, q = 0.25: half a pseudo-win and 1.5 pseudo-losses. n = 3 + 1 in flight, w = 2:
    # Beta(0.5 + 2, 1.5 + 4 - 2) = Beta(2.5, 3.5): mean 2.5/6, variance 2.5·3.5/(6²·7)
    rng = random.Random(1)
    draws = [thompson_scores([arm(1.0, 0.25, n=3, o=1, w=2.0)], [2.0], rng)[0] for _ in range(20_000)]
    assert fmean(draws) == pytest.approx(2.5 / 6, abs=4 * (8.75 / 252 / 20_000) ** 0.5)
    assert pvariance(draws) == pytest.approx(8.75 / 252, rel=0.05)


@pytest.mark.parametrize("model", [0.0, 1.0])
def test_thompson_can_draw_where_nothing_was_seen_and_the_model_is_certain(model: float):
    draws = thompson_scores([arm(1.0, model)] * 50, [2.0] * 50, random.Random(2))
    assert fmean(draws) == pytest.approx(model, abs=0.05)


def test_the_earlier_of_equal_arms_wins():
    choices = [arm(0.5), arm(0.5)]
    assert best(choices, [1.0, 1.0]) is choices[0]


def siblings(*draws: tuple[int, tuple[float, ...]]) -> list[Node]:
    tree = Tree(prompt_tokens=(), params=new_tree().params, sampling=new_tree().sampling, seed=0)
    return [tree.add(tree.root, multiplicity=m, logprobs=logprobs) for m, logprobs in draws]


def test_the_prior_of_sampled_actions_is_how_often_they_were_drawn():
    # the policy's probabilities (here 1 to e⁻⁸) are in the draws already and are not applied again
    drawn = siblings((3, (-8.0,)), (1, (0.0,)))
    assert priors(drawn, "count", 1.0, "step") == [0.75, 0.25]


def test_summed_log_probs_favour_short_actions_and_mean_ones_do_not():
    # sums -2 and -4, means -2 and -1
    short, long = siblings((1, (-2.0,)), (1, (-1.0,) * 4))
    assert priors([short, long], "sum_logprob", 1.0, "step") == pytest.approx(softmax([-2.0, -4.0]))
    assert priors([short, long], "mean_logprob", 1.0, "step") == pytest.approx(softmax([-2.0, -1.0]))


@pytest.mark.parametrize("kind", ["mean_logprob", "sum_logprob"])
def test_a_prior_temperature_changes_the_prior(kind: str):
    # log-odds of ln 9 over temperature 2 are ln 3
    drawn = siblings((1, (0.0,)), (1, (-2.1972245773362196,)))
    assert priors(drawn, kind, 1.0, "step") == pytest.approx([0.9, 0.1])  # type: ignore[arg-type]
    assert priors(drawn, kind, 2.0, "step") == pytest.approx([0.75, 0.25])  # type: ignore[arg-type]


def test_token_actions_take_the_exact_softmax_whatever_was_asked():
    drawn = siblings((1, (-0.5,)), (1, (-0.5 - 1.0986122886681098,)))
    assert priors(drawn, "count", 3.0, "token") == pytest.approx([0.75, 0.25])


def test_the_softmax_of_huge_logits_is_finite():
    assert softmax([1e6, 1e6 - 1e3]) == [1.0, 0.0]
    assert softmax([]) == []


def test_marks_are_taken_back_exactly_when_a_plan_lands():
    mcts, _ = bandit({"a": 0.8, "b": 0.1})
    mcts.builder.unexpanded = 2
    plan = mcts.select()
    assert plan is not None
    before = [(node.in_flight, node.expanding) for node in mcts.tree.nodes]
    mcts.begin(plan)
    assert [node.in_flight for node in plan.path] == [1, 1]
    mcts.builder.end(plan)
    assert [(node.in_flight, node.expanding) for node in mcts.tree.nodes] == before
    mcts.land(plan, PlanResult(samples=[]))
    assert mcts.tree.root.visits == 0


def test_with_a_growth_a_value_counts_for_more_the_more_steps_are_left_and_for_nothing_before_the_last() -> (
    None
):
    counts = [pseudo_visits(2.0, 3.0, steps) for steps in (0, 1, 2, 3, 4)]
    assert counts == [0.0, 0.0, 2.0, 8.0, 26.0]  # 2·(1 + 3 + 9)
    assert pseudo_visits(2.0, None, 4) == 2.0


def test_pseudo_visits_stay_numbers_however_deep_answers_are():
    count = pseudo_visits(1000.0, 100.0, 4096)
    (score,) = thompson_scores([arm(1.0, 0.5)], [count], random.Random(1))
    assert score == pytest.approx(0.5)


def test_before_any_answer_has_ended_32_steps_are_taken_to_be_left_or_fewer_if_none_may_be_as_long():
    for depth, left in ((4096, 32), (10, 10)):
        tree = new_tree(algorithm="mcts", kappa_growth=3.0, max_depth=depth)
        budget = Budget(tree.params.budget, final=0, clock=lambda: 0.0)
        search = Mcts(TreeBuilder(tree, budget), random.Random(0))
        (kappa,) = search._kappas(search.tree.root, [arm(1.0)])
        assert kappa == pseudo_visits(2.0, 3.0, left)
