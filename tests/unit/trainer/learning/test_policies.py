"""Trees of several policies: ratio objectives learn from the student's own draws alone, imitation from all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ramify.search.codec import tree_to_dict
from ramify.search.params import search_params
from ramify.search.records import Sampling
from ramify.search.tree import Tree
from ramify_trainer.learning.config import LearningConfig
from ramify_trainer.learning.labels import LabelledTree, OutcomeWeights, own_draws, policy_refusal
from ramify_trainer.learning.metrics import draw_figures
from ramify_trainer.learning.targets import policy_targets, right_answers
from ramify_trainer.loop.puller import TrainingRecord
from ramify_trainer.loop.round_trees import freeze, label_trees

PPO = LearningConfig(objective="tree_ppo", child_weight="multiplicity")


def joint_tree() -> LabelledTree:
    """`policy` drew nodes 1 and 4, `other` 2, 3 and 5; 1 was drawn three times, once of these by `other`."""
    params = search_params("best_of_n", policies=("policy", "other"))
    tree = Tree(id="tree_1", prompt_tokens=(63, 10), params=params, sampling=Sampling(), seed=1)
    by = ("policy", "other", "other", "policy", "other")
    for i, (name, outcome) in enumerate(zip(by, (1.0, 0.0, 1.0, 0.0, 1.0), strict=True), 1):
        tree.add(
            tree.root,
            tokens=(80 + i, 0),
            logprobs=(-1.0 * i, 0.0),
            length=2,
            terminal="eos",
            policy=name,
            release="v000001" if name == "policy" else "elsewhere",
            outcome=outcome,
            outcome_source="verifier",
        )
    tree.nodes[1].multiplicity, tree.nodes[1].drawn_by = 3, {"policy": 2, "other": 1}
    tree.nodes[2].multiplicity, tree.nodes[2].drawn_by = 2, {"other": 1, "policy": 1}
    return LabelledTree(tree, {node.id: node.outcome or 0.0 for node in tree.nodes[1:]})


def test_own_draws_are_those_whose_log_probabilities_are_logged() -> None:
    nodes = joint_tree().tree.nodes
    assert [own_draws(node) for node in nodes[1:]] == [2, 0, 0, 1, 0]
    assert [node.draws_of("other") for node in nodes[1:]] == [1, 1, 1, 0, 1]


def test_of_what_a_node_stands_for_its_policys_share_is_its_own() -> None:
    node = joint_tree().tree.nodes[1]
    node.stands_for = 1.2
    assert own_draws(node) == pytest.approx(1.2 * 2 / 3)


def test_ratio_objectives_are_taught_by_own_draws_alone() -> None:
    labelled = joint_tree()
    targets = policy_targets(labelled, PPO)
    assert set(targets.weights) == {1, 4}
    assert set(targets.advantages) == {1, 4}
    assert targets.weights[1] == 2 * targets.weights[4] > 0
    assert targets.advantages[1] > 0 > targets.advantages[4]


def test_the_champion_path_leaves_out_what_others_drew() -> None:
    labelled = joint_tree()
    tree = labelled.tree
    assert tree.answer is None
    for chosen, taught in ((1, {1}), (3, set())):
        for node in tree.nodes[1:]:
            node.visits = 9 if node.id == chosen else 0
            node.value_sum = 9.0 if node.id == chosen else 0.0
        config = LearningConfig(objective="path_ppo")
        targets = policy_targets(labelled, config, {0: 0.25, chosen: 0.5})
        assert set(targets.weights) <= taught


def test_imitation_and_visits_learn_from_all() -> None:
    labelled = joint_tree()
    (ends,) = right_answers([labelled], 0.5)
    assert {leaf.id for leaf in ends} == {1, 3, 5}
    for objective in ("sft", "visits"):
        assert policy_refusal(labelled, LearningConfig(objective=objective)) is None
    for node in labelled.tree.nodes[1:]:
        node.visits, node.value_sum = 1, node.outcome or 0.0
    taught = policy_targets(labelled, LearningConfig(objective="visits", visit_target="visits"))
    assert set(taught.weights) == {1, 2, 3, 4, 5}


def test_a_tree_that_others_have_drawn_whole_is_refused_by_ratio_objectives() -> None:
    labelled = joint_tree()
    for node in labelled.tree.nodes[1:]:
        node.policy, node.drawn_by = "other", None
    assert policy_refusal(labelled, PPO) == "others"
    assert policy_refusal(labelled, LearningConfig(objective="sft")) is None
    assert policy_refusal(joint_tree(), PPO) is None


def test_the_entropy_is_that_of_own_draws() -> None:
    figures = draw_figures([joint_tree()], 0.5)
    assert figures["entropy"] == pytest.approx((2 * 1.0 + 1 * 4.0) / (2 * 3))


@pytest.mark.anyio
async def test_releases_of_other_policies_make_no_tree_stale(tmp_path: Path) -> None:
    async def records() -> AsyncIterator[TrainingRecord]:
        yield TrainingRecord(1, "tree_1", tree_to_dict(joint_tree().tree))

    await freeze(records(), tmp_path / "trees.jsonl")
    (labelled,) = await label_trees(
        tmp_path / "trees.jsonl", OutcomeWeights(), lambda release: {"v000001": 1}.get(release, 1_000_000)
    )
    assert labelled.staleness == 1
