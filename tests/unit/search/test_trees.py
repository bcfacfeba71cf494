"""How trees grow: simulations, backups, commits and the algorithms that are not bandits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from string import ascii_uppercase

import pytest

from fakes import FakePolicy, FakeTask, Rule, letters
from ramify.search.algorithms.mcts import Mcts
from ramify.search.budget import Budget
from ramify.search.builder import TreeBuilder
from ramify.search.records import Action, BudgetLimits, Sampling
from ramify.search.tree import Node
from search_worlds import (
    ONE_AT_A_TIME,
    first,
    grow,
    last,
    listing,
    new_tree,
    ran,
    world,
)


def worded(choices: Mapping[str, float], depth: int) -> Rule:
    """Answers of `depth` lines and one of 26 last words, all as likely: no node closes in fewer than 26 draws."""
    line = letters(choices, depth)

    def rule(text: str) -> Mapping[str, float]:
        if text.count("\n") < depth:
            return line(text)
        return dict.fromkeys(ascii_uppercase, 1 / 26) if text.endswith("\n") else {"": 1.0}

    return rule


STEPS = {"algorithm": "mcts", "select": "puct", "expand": "step", **ONE_AT_A_TIME}


def test_expanding_the_root_is_simulation_1():
    found = ran(policy=listing(3), **STEPS, budget=BudgetLimits(simulations=1))
    assert found.tree.usage.simulations == 1
    assert found.tree.root.visits == 1
    # one request of four draws, and the final completion; the root is not expanded twice
    assert [n for _, _, n in found.policy.requests] == [4, 1]
    assert {node.simulation for node in found.tree.children(found.tree.root)} == {1}


def test_a_step_expansion_backs_up_the_mean_of_its_draws_once():
    # the mean over draws of v = 0.9, 0.6, 0.3, 0.05 is 0.4625, added to the root once
    found = ran(value=last, policy=listing(3), **STEPS, budget=BudgetLimits(simulations=1))
    assert found.tree.root.value_sum == pytest.approx(0.4625)
    assert all(child.visits == 0 for child in found.tree.children(found.tree.root))


def test_merged_draws_weigh_as_often_as_they_were_drawn():
    # width 4 over two texts: a, b, a, b → m = 2 each; with three: a, b, c, a → (2·0.9 + 0.6 + 0.3)/4 = 0.675
    found = ran(value=last, policy=listing(3, "abc"), **STEPS, budget=BudgetLimits(simulations=1))
    assert [c.multiplicity for c in found.tree.children(found.tree.root)] == [2, 1, 1]
    assert found.tree.root.value_sum == pytest.approx(0.675)


def test_the_second_simulation_expands_the_best_child_and_is_learned_at_the_root():
    found = ran(value=first, policy=listing(3), **STEPS, budget=BudgetLimits(simulations=2))
    root, a = found.tree.root, found.at("a\n")
    assert (root.visits, a.visits) == (2, 1)
    assert a.value_sum == pytest.approx(0.9)
    assert root.value_sum == pytest.approx(0.4625 + 0.9)


def test_a_path_backs_up_its_end_along_the_whole_path():
    # one request, three lines and the end; every node of it has the visit and the end's value
    found = ran(
        value=last, policy=listing(3, "a"), algorithm="mcts", width=1, budget=BudgetLimits(simulations=1)
    )
    nodes = found.tree.nodes
    assert [(node.visits, node.value_sum) for node in nodes] == [(1, 0.9)] * 5
    assert [(node.fresh_visits, node.expanded) for node in nodes] == [(1, True)] * 4 + [(0, False)]
    assert [node.text for node in nodes[1:]] == ["a\n", "a\n", "a\n", ""]
    assert nodes[-1].terminal == "eos"


def test_paths_share_the_prefixes_that_the_tree_holds():
    found = ran(letters({"a": 1.0}, 2), algorithm="mcts", width=4, budget=BudgetLimits(simulations=1))
    assert [node.multiplicity for node in found.tree.nodes[1:]] == [4, 4, 4]
    assert len(found.tree.completions) == 4
    assert found.tree.usage.completion_tokens == 4 * 5  # merged draws are paid for like any other


def test_what_backup_learned_steers_the_next_simulation():
    # the model has no opinion of unfinished steps; only what the ends were worth can favour `a`, below which
    # 256 answers are more than 40 draws use up
    found = ran(
        letters({"a": 0.5, "b": 0.5}, 9),
        lambda text: 0.5 if text.count("\n") < 9 else first(text),
        algorithm="mcts",
        budget=BudgetLimits(simulations=40),
        **ONE_AT_A_TIME,
    )
    assert found.at("a\n").visits > 1.5 * found.at("b\n").visits


def test_nothing_grows_below_the_end_of_an_answer_and_its_value_is_not_read_twice():
    # all answers are one line; later simulations revisit them and send no request
    found = ran(
        lambda text: {"a\n": 0.5, "b\n": 0.5} if not text else {"c\n": 1.0},
        value=first,
        policy=None,
        **STEPS,
        sampling=Sampling(stop=("a\n",)),
        budget=BudgetLimits(simulations=12),
    )
    a = found.at("a\n")
    assert a.terminal == "stop"
    assert a.visits > 0
    assert a.value_sum == pytest.approx(0.9 * a.visits)
    assert not a.children


def test_a_step_tree_whose_leaves_are_all_finished_is_exhausted():
    found = ran(
        policy=listing(1), **STEPS, sampling=Sampling(stop=("\n",)), budget=BudgetLimits(simulations=50)
    )
    assert found.tree.stop_reason == "exhausted"
    assert found.tree.usage.simulations == 1


def test_an_answer_cut_by_a_cap_is_truncated_and_worth_0():
    deep = ran(policy=listing(9), value=first, **STEPS, max_depth=1, budget=BudgetLimits(simulations=5))
    assert {(n.terminal, n.value) for n in deep.tree.children(deep.tree.root)} == {("truncated", 0.0)}
    long = ran(policy=listing(9), value=first, algorithm="mcts", parallel=1, sampling=Sampling(max_tokens=5))
    assert {n.terminal for n in long.tree.leaves()} == {"truncated"}
    assert long.scorer.scored == len(long.tree.nodes) - 1 - sum(1 for n in long.tree.leaves())


def test_the_end_of_an_answer_at_the_cap_is_no_truncation():
    found = ran(letters({"a": 1.0}, 2), algorithm="mcts", sampling=Sampling(max_tokens=5), max_depth=3)
    assert {n.terminal for n in found.tree.leaves()} == {"eos"}


def test_an_answers_stop_string_may_straddle_two_steps():
    found = ran(
        letters({"a": 1.0}, 9),
        **STEPS,
        sampling=Sampling(stop=("\na\n",)),
        budget=BudgetLimits(simulations=9),
    )
    (completion,) = {c.node for c in found.tree.completions}
    assert found.tree.text(found.tree.nodes[completion]) == "a\na\n"
    paths = ran(
        letters({"a": 1.0}, 9),
        algorithm="mcts",
        sampling=Sampling(stop=("\na\n",)),
        budget=BudgetLimits(simulations=9),
    )
    assert {paths.tree.text(n) for n in paths.tree.complete()} == {"a\na\n"}


# Commits


def test_a_backup_climbs_to_the_searchs_root_and_no_higher():
    tree = new_tree(algorithm="mcts", commit="step")
    builder = TreeBuilder(tree, Budget(tree.params.budget, final=0, clock=lambda: 0.0))
    a = grow(builder, tree.root, "a")
    b = grow(builder, a, "b")
    c = grow(builder, tree.root, "c")
    builder.search_root = a
    builder.back_up((tree.root, a, b), 1.0, fresh=(tree.root, a))
    assert [(n.visits, n.fresh_visits) for n in (tree.root, a, b, c)] == [(0, 0), (1, 1), (1, 0), (0, 0)]
    builder.back_up((tree.root, c), 1.0, fresh=(tree.root,))  # began before the commit, on the way not taken
    assert [n.visits for n in (tree.root, a, b, c)] == [0, 1, 1, 0]


def test_commits_spread_the_budget_evenly_over_the_depth_that_remains():
    # Answers are 3 lines and a last word: 4 steps. 12 simulations: a step is committed when 3, 6 and 9 have begun;
    # every later simulation begins below it.
    found = ran(worded({"a": 0.6, "b": 0.4}, 3), first, algorithm="mcts", commit="step", width=2,
                budget=BudgetLimits(simulations=12), **ONE_AT_A_TIME)  # fmt: skip
    tree = found.tree
    assert len(tree.committed) == 3
    assert [tree.nodes[i].depth for i in tree.committed] == [1, 2, 3]
    # visits above the search's root stop with the commit: two draws of simulation 1 and two more
    assert tree.root.visits == 4
    drifted = [i for i in tree.committed if tree.nodes[i].visits < tree.nodes[i].children.__len__()]
    assert not drifted
    begun_below = {
        c.simulation for c in tree.completions if tree.committed[0] in _ancestors(tree.nodes, c.node)
    }
    assert set(range(4, 13)) <= begun_below


def _ancestors(nodes: list[Node], at: int) -> set[int]:
    found = set()
    while (parent := nodes[at].parent) is not None:
        found.add(at)
        at = parent
    return found


def test_thirds_of_a_budget_are_committed_on_time():
    # 1/3 + (1 - 1/3)/2 is a hair above 6/9 in floating point: the second commit must not slip to simulation 8
    found = ran(worded({"a": 1.0}, 2), algorithm="mcts", commit="step", width=1,
                budget=BudgetLimits(simulations=9), **ONE_AT_A_TIME)  # fmt: skip
    # answers are 2 lines and a last word, depth 3: commits before simulations 4 and 7, so the root has 3 visits, `a` 6
    assert [found.tree.nodes[i].visits for i in (0, *found.tree.committed)] == [3, 6, 9]


def test_a_commit_takes_the_most_visited_step_at_temperature_0_and_draws_by_visits_above():
    def committed(tau: float, seed: int) -> str:
        found = ran(worded({"a": 0.5, "b": 0.5}, 2), lambda text: 0.5, algorithm="mcts", commit="step", tau=tau,
                    seed=seed, budget=BudgetLimits(simulations=9), **ONE_AT_A_TIME)  # fmt: skip
        tree = found.tree
        # three steps, so the first commit is before simulation 4; equals go to the earlier
        before = [_ancestors(tree.nodes, c.node) for c in tree.completions if c.simulation <= 3]
        most = max(tree.children(tree.root), key=lambda c: sum(c.id in line for line in before))
        return "most" if tree.committed[0] == most.id else "other"

    assert {committed(0.0, seed) for seed in range(8)} == {"most"}
    assert {committed(50.0, seed) for seed in range(16)} == {"most", "other"}


def test_a_search_that_committed_itself_to_the_end_of_an_answer_is_over():
    tree = new_tree(**STEPS, commit="step", budget=BudgetLimits(simulations=100))
    builder = TreeBuilder(tree, Budget(tree.params.budget, final=0, clock=lambda: 0.0))
    mcts = Mcts(builder, random.Random(0))
    builder.search_root = grow(builder, tree.root, "a", terminal="eos", value=0.9, visits=3, value_sum=2.7)
    grow(builder, tree.root, "b", value=0.5)
    builder.unexpanded = 1
    assert mcts.select() is None


def test_dirichlet_noise_moves_the_roots_priors_and_only_there():
    def visits(fraction: float, seed: int) -> list[int]:
        found = ran(policy=listing(4), value=lambda text: 0.5, **STEPS, c_init=2.0, dirichlet_fraction=fraction,
                    budget=BudgetLimits(simulations=20), seed=seed)  # fmt: skip
        return [child.visits for child in found.tree.children(found.tree.root)]

    assert visits(0.0, 1) == visits(0.0, 2)
    assert visits(0.9, 1) != visits(0.9, 2)


# Leaf evaluation


def test_a_rollout_judges_the_leaf_by_its_end_and_is_kept():
    found = ran(value=lambda text: 0.75 if text.count("\n") == 2 else 0.25, policy=listing(2), **STEPS, leaf="rollout",
                budget=BudgetLimits(simulations=1))  # fmt: skip
    assert found.tree.root.value_sum == 0.75
    assert len(found.tree.completions) == 1
    assert found.at("a\n").multiplicity == 2  # a draw of the expansion and the rollout's first step


def test_a_mixed_leaf_weighs_the_rollout_against_the_value():
    # λ = 0.25: 0.25·0.75 + 0.75·0.25 = 0.375
    found = ran(value=lambda text: 0.75 if text.count("\n") == 2 else 0.25, policy=listing(2), **STEPS, leaf="mixed",
                rollout_weight=0.25, budget=BudgetLimits(simulations=1))  # fmt: skip
    assert found.tree.root.value_sum == pytest.approx(0.375)


def test_token_actions_can_be_judged_by_rollouts():
    found = ran(lambda text: {"a": 0.7, "b": 0.3} if len(text) < 4 else {"": 1.0}, **STEPS, leaf="rollout",
                action=Action("token", ()), width=2, budget=BudgetLimits(simulations=5))  # fmt: skip
    assert all(len(node.tokens) == 1 for node in found.tree.nodes[1:])
    assert {texts[0] for texts in (node.text for node in found.tree.children(found.tree.root))} == {"a", "b"}


def test_enumerated_tokens_are_weighed_by_their_probabilities():
    # exact softmax of ln 0.7 and ln 0.3: 0.7·0.9 + 0.3·0.6 = 0.81, where a plain mean would be 0.75
    found = ran(lambda text: {"a": 0.7, "b": 0.3} if len(text) < 4 else {"": 1.0}, first, **STEPS,
                action=Action("token", ()), width=2, budget=BudgetLimits(simulations=1))  # fmt: skip
    assert found.tree.root.value_sum == pytest.approx(0.81)
    assert [round(c.prior, 9) for c in found.tree.children(found.tree.root)] == [0.7, 0.3]


def test_one_judge_for_complete_answers_never_both():
    verified = ran(
        letters({"a": 1.0}, 2), algorithm="mcts", grader="verifier", budget=BudgetLimits(simulations=3)
    )
    ends = verified.tree.complete()
    assert all(node.value is None and node.outcome == 1.0 for node in ends)
    modelled = ran(letters({"a": 1.0}, 2), algorithm="mcts", budget=BudgetLimits(simulations=3))
    assert all(node.value is not None and node.outcome is None for node in modelled.tree.complete())
    assert modelled.task.graded == 0


def test_a_vote_over_flat_answers_asks_no_judge():
    found = ran(algorithm="self_consistency", budget=BudgetLimits(simulations=5))
    assert found.scorer.scored == found.task.graded == 0


# Concurrency inside one tree


@pytest.mark.anyio
async def test_simulations_in_flight_never_expand_one_node_twice():
    found = world(policy=FakePolicy(letters({"a": 0.5, "b": 0.5}, 4), jitter=random.Random(3)), algorithm="mcts",
                  select="puct", expand="step", parallel=16, budget=BudgetLimits(simulations=40))  # fmt: skip
    tree = await found.run()
    assert max(node.expansions for node in tree.nodes) == 1
    assert found.policy.most_running > 1


@pytest.mark.anyio
async def test_parallel_bounds_what_is_in_flight():
    gate = asyncio.Event()
    found = world(
        policy=FakePolicy(letters({"a": 0.5, "b": 0.5}, 4), gate=gate), algorithm="best_of_n", parallel=3
    )
    running = asyncio.create_task(found.run())
    for _ in range(20):
        await asyncio.sleep(0)
    assert found.policy.running == 3
    gate.set()
    await running
    assert found.policy.most_running == 3


def test_every_draw_of_a_search_has_a_seed_of_its_own():
    seeds: list[int] = []

    class Noting(FakePolicy):
        async def sample(self, prefix, sampling, given):  # type: ignore[no-untyped-def]
            seeds.extend(given)
            return await super().sample(prefix, sampling, given)

    ran(
        policy=Noting(letters({"a": 0.5, "b": 0.5}, 8)), algorithm="mcts", budget=BudgetLimits(simulations=60)
    )
    assert len(set(seeds)) == len(seeds) > 60


def test_a_grading_failure_is_counted_apart_and_backs_nothing_up():
    found = ran(letters({"a": 1.0}, 1), task=FakeTask(lambda t: True, lambda t: True), algorithm="mcts", width=3,
                grader="verifier", budget=BudgetLimits(simulations=1))  # fmt: skip
    assert found.tree.usage.grading_failures == 1
    assert found.tree.root.visits == found.tree.root.fresh_visits == 0
    assert found.tree.answer is not None
    assert (found.tree.answer.final, found.tree.answer.outcome) == ("a", None)
