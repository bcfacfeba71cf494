"""A round's labels where the verifier itself fails: real math-verify workers, under the trainer's deadline."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from ramify.rewards.grading import close_pools
from ramify.search.codec import tree_to_dict
from ramify.search.tree import Completion, Tree
from ramify_trainer.learning.labels import OutcomeWeights
from ramify_trainer.loop.puller import TrainingRecord
from ramify_trainer.loop.round_trees import freeze, label_trees, solved_share
from search_worlds import new_tree

pytestmark = pytest.mark.anyio
HANGS = "\\boxed{9^{9^{9^{9}}}}"
RIGHT, WRONG = "\\boxed{42}", "\\boxed{41}"
NO_MATHEMATICS = "\\foo{3}"


@pytest.fixture(autouse=True)
async def _closed() -> AsyncIterator[None]:
    yield
    await close_pools()


def answered(problem: Mapping[str, str], *texts: str, seed: int) -> TrainingRecord:
    tree: Tree = new_tree(seed=seed)
    tree.task, tree.problem = "math", dict(problem)
    for i, text in enumerate(texts):
        node = tree.add(
            tree.root, tokens=(i,), logprobs=(-0.5,), text=text, terminal="eos", release="v000001"
        )
        tree.completions.append(Completion(node.id, i + 1, i + 1))
    return TrainingRecord(seed, tree.id, tree_to_dict(tree))


async def test_answers_on_which_the_verifier_hangs_or_fails_have_no_label_and_the_others_keep_theirs(
    tmp_path: Path,
) -> None:
    async def records() -> AsyncIterator[TrainingRecord]:
        yield answered({"answer": "42"}, WRONG, HANGS, RIGHT, seed=1)
        yield answered({"answer": NO_MATHEMATICS}, RIGHT, WRONG, seed=2)
        yield answered({"answer": "42"}, RIGHT, seed=3)

    await freeze(records(), tmp_path / "trees.ndjson")
    found = await label_trees(tmp_path / "trees.ndjson", OutcomeWeights(), lambda _: 0)
    assert [tree.outcomes for tree in found] == [{1: 0.0, 3: 1.0}, {}, {1: 1.0}]
    assert solved_share(found) == pytest.approx(2 / 3)
