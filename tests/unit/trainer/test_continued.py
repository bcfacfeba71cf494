"""A search that was taken on is learned from once: no draw of it counts twice."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes import FakePolicy, FakeScorer, FakeTask, letters
from ramify.search import go_on
from ramify.search.codec import tree_from_dict, tree_to_dict
from ramify.search.records import BudgetLimits
from ramify.search.run import Search
from ramify.search.tree import Tree
from ramify_trainer.learning.labels import Feedback, LabelledTree, OutcomeWeights
from ramify_trainer.loop.puller import TrainingRecord
from ramify_trainer.loop.round_trees import freeze, label_trees
from search_worlds import new_tree

pytestmark = pytest.mark.anyio
WORLD = FakePolicy(letters({chr(97 + i): 1 / 26 for i in range(26)}, 2)), FakeTask()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def parts(*simulations: int) -> list[Tree]:
    """A search in parts that go on to so many simulations, each as it was logged."""
    tree = new_tree(algorithm="best_of_n", budget=BudgetLimits(simulations=simulations[0]))
    policy, task = WORLD
    scorer = FakeScorer(lambda text: 0.5)
    await Search(tree, policy, scorer, task, clock=lambda: 0.0, keeps_state=True).run()
    logged = [as_logged(tree)]
    for i, more in enumerate(simulations[1:], 1):
        tree = await go_on(
            as_logged(tree), policy, scorer, task, budget=BudgetLimits(simulations=more), clock=lambda: 0.0
        )
        tree.id = f"tree_{i:032x}"
        logged.append(as_logged(tree))
    return logged


def as_logged(tree: Tree) -> Tree:
    return tree_from_dict(json.loads(json.dumps(tree_to_dict(tree))))


async def learned(folder: Path, trees: list[Tree], feedback: dict[str, int]) -> list[LabelledTree]:
    """Learn in a round that pulls these trees, and feedback on a node of a tree."""

    async def records() -> AsyncIterator[TrainingRecord]:
        for seq, tree in enumerate(trees):
            yield TrainingRecord(seq, tree.id, tree=tree_to_dict(tree))
        for seq, (tree_id, node) in enumerate(feedback.items(), len(trees)):
            yield TrainingRecord(seq, tree_id, feedback=Feedback(node, None, 1.0))

    await freeze(records(), folder / "trees.ndjson")
    return await label_trees(folder / "trees.ndjson", OutcomeWeights(model=1.0), lambda release: 0)


def answers(*labelled: LabelledTree) -> int:
    return sum(len(one.outcomes) for one in labelled)


async def test_a_round_that_has_both_parts_learns_from_the_longer_tree_alone(tmp_path: Path) -> None:
    first, second, third = await parts(2, 4, 6)
    found = await learned(tmp_path, [first, second, third], {})
    assert [one.tree.id for one in found] == [third.id]
    assert answers(*found) == len(third.complete()) == 6


async def test_feedback_on_a_part_is_feedback_on_the_longer_tree(tmp_path: Path) -> None:
    first, second = await parts(2, 4)
    (end, *_) = first.complete()
    (found,) = await learned(tmp_path, [first, second], {first.id: end.id})
    assert found.outcomes[end.id] == 1.0
    assert sum(outcome == 1.0 for outcome in found.outcomes.values()) == 1


async def test_what_an_earlier_round_has_learned_from_is_not_learned_again(tmp_path: Path) -> None:
    first, second, third = await parts(2, 4, 6)
    earlier = await learned(tmp_path, [first], {})
    later = await learned(tmp_path, [second, third], {})
    assert [one.tree.id for one in later] == [third.id]
    assert set(later[0].outcomes) == {node.id for node in third.complete() if node.id >= len(first.nodes)}
    assert answers(*earlier, *later) == 6
