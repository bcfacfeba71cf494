"""Labels of answers: the mean of who knows one, by configured weights, and 0 for what was pruned."""

from __future__ import annotations

import pytest

from ramify.search.records import Verdict
from ramify.search.tree import Node, Tree
from ramify_trainer.learning.labels import Feedback, OutcomeWeights, label_answers
from search_worlds import new_tree


def answer(**fields: object) -> tuple[Tree, Node]:
    tree = new_tree()
    given = {"terminal": "eos", "value": 0.3, "scores": {"prm": 0.9, "style": 0.1}} | fields
    return tree, tree.add(tree.root, tokens=(1,), logprobs=(-0.5,), text="a", **given)


RIGHT = {1: Verdict(1.0, "")}
LIKED = (Feedback(1, None, 0.5),)


@pytest.mark.parametrize(
    ("weights", "label"),
    [
        ({}, (1.0 + 0.5) / 2),
        ({"human": 0}, 1.0),
        ({"scorers": {"prm": 2.0}}, (1.0 + 0.5 + 2 * 0.9) / 4),
        ({"verifier": 3.0, "human": 0, "scorers": {"prm": 1.0, "style": 1.0}}, (3 + 0.9 + 0.1) / 5),
        ({"scorers": {"another": 5.0}}, (1.0 + 0.5) / 2),
        ({"verifier": 0, "human": 0, "model": 1.0}, 0.3),
    ],
)
def test_a_label_is_the_mean_of_verifier_people_and_scorers_by_their_weights(
    weights: dict[str, object], label: float
) -> None:
    tree, node = answer()
    found = label_answers(tree, LIKED, RIGHT, OutcomeWeights.model_validate(weights))
    assert found == {node.id: pytest.approx(label)}


def test_what_a_safety_scorer_pruned_is_0_whatever_anybody_says() -> None:
    tree, node = answer(terminal="pruned", pruned_by="safety", value=0.0, outcome=1.0, outcome_source="human")
    weights = OutcomeWeights(scorers={"prm": 1.0}, model=1.0)
    assert label_answers(tree, LIKED, RIGHT, weights) == {node.id: 0.0}
