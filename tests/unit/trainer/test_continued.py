"""A search that was taken on is learned from once: no draw of it counts twice."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes import FakePolicy, FakeScorer, FakeTask, letters
from ramify.search import go_on
from ramify.search.codec import tree_from_dict, tree_to_dict
from ramify.search.params import search_params
from ramify.search.records import BudgetLimits, Sampling, SearchPart, Usage
from ramify.search.run import Search
from ramify.search.tree import Tree
from ramify_trainer.learning.config import LearningConfig
from ramify_trainer.learning.labels import Feedback, LabelledTree, OutcomeWeights
from ramify_trainer.learning.metrics import draw_figures
from ramify_trainer.learning.pieces import value_lessons
from ramify_trainer.learning.targets import imitated, policy_targets, right_answers, value_targets
from ramify_trainer.loop.puller import TrainingRecord
from ramify_trainer.loop.round_trees import freeze, label_trees, solved_share
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


async def learned(
    folder: Path, trees: list[Tree], feedback: dict[str, int], *, train: bool = True
) -> list[LabelledTree]:
    """Learn in a round that pulls these trees, and feedback on a node of a tree, which `train` lets it use."""

    async def records() -> AsyncIterator[TrainingRecord]:
        for seq, tree in enumerate(trees):
            yield TrainingRecord(seq, tree.id, tree=tree_to_dict(tree))
        for seq, (tree_id, node) in enumerate(feedback.items(), len(trees)):
            yield TrainingRecord(seq, tree_id, feedback=Feedback(node, None, 1.0, train=train))

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


async def test_an_earlier_rounds_answers_are_known_and_not_learned_from_again(tmp_path: Path) -> None:
    first, second, third = await parts(2, 4, 6)
    (earlier,) = await learned(tmp_path, [first], {})
    (later,) = await learned(tmp_path, [second, third], {})
    assert later.tree.id == third.id
    assert answers(later) == len(third.complete()) == 6
    assert (earlier.learned, later.learned) == (frozenset(), set(range(len(first.nodes))))


# -- a step drawn five times, in a search whose first part an earlier round has read -----------------------------------

STEP, OLD, NEW = 1, (2, 3, 4, 5), 6
PPO = LearningConfig(objective="tree_ppo")
VISITS = LearningConfig(objective="visits", visit_target="visits")


def taken_on_once(old: float, new: float) -> Tree:
    """Four answers below a step that an earlier round has read, and a new one, of these outcomes."""
    tree = Tree(
        id=f"tree_{1:032x}",
        prompt_tokens=(63, 10),
        params=search_params("mcts"),
        sampling=Sampling(),
        seed=0,
        continues=SearchPart(f"tree_{0:032x}", Usage(nodes=NEW)),
    )
    step = tree.add(tree.root, tokens=(80,), logprobs=(-1.0,), length=1, multiplicity=5, visits=5)
    for i in (*OLD, NEW):
        outcome = new if i == NEW else old
        tree.add(
            step,
            tokens=(80 + i, 0),
            logprobs=(-0.5 * i, 0.0),
            length=3,
            terminal="eos",
            visits=1,
            outcome=outcome,
            outcome_source="verifier",
        )
    return tree


async def test_what_is_new_is_compared_with_all_and_has_all_the_weight(tmp_path: Path) -> None:
    (found,) = await learned(tmp_path, [taken_on_once(old=0.0, new=1.0)], {})
    assert value_targets(found.tree, found.outcomes, 1.0)[STEP] == (pytest.approx(0.2), 5.0)
    assert value_lessons([found], PPO, apart=False) == [{NEW: (1.0, 1.0)}]
    targets = policy_targets(found, PPO)
    assert targets.weights.keys() == targets.advantages.keys() == {NEW}
    assert targets.advantages[NEW] == pytest.approx(
        1 - 0.2 / 5
    )  # the baseline of the step, and four wrong answers
    assert policy_targets(found, VISITS).weights == {NEW: 0.2}
    assert draw_figures([found], 1.0)["entropy"] == pytest.approx(3.0 / 2)


async def test_an_answer_found_before_is_imitated_no_more_and_still_solves_the_problem(
    tmp_path: Path,
) -> None:
    (wrong,) = await learned(tmp_path, [taken_on_once(old=1.0, new=0.0)], {})
    assert right_answers([wrong], 1.0) == [[]]
    assert solved_share([wrong]) == 1.0
    (right,) = await learned(tmp_path, [taken_on_once(old=1.0, new=1.0)], {})
    ends = right_answers([right], 1.0)
    assert imitated([right], ends, PPO) == [{STEP: 1.0, NEW: 1.0}]


async def test_an_older_answer_with_feedback_is_learned_from_once_more(tmp_path: Path) -> None:
    tree = taken_on_once(old=0.0, new=0.0)
    (found,) = await learned(tmp_path, [tree], {tree.id: OLD[0]})
    assert found.outcomes[OLD[0]] == 0.5  # the person's 1 and the verifier's 0
    assert found.learned == {0, *OLD[1:]}
    assert policy_targets(found, PPO).advantages[OLD[0]] > 0
    (kept,) = await learned(tmp_path, [tree], {tree.id: OLD[0]}, train=False)
    assert kept.learned == {0, STEP, *OLD}
