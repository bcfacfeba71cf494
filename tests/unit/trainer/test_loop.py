"""The loop's state on disk, and its use of a round's trees."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from ramify.rewards.countdown import prompt
from ramify.search.codec import tree_to_dict
from ramify.search.tree import Completion, Tree
from ramify_trainer.config import LoopConfig
from ramify_trainer.gate.policy_scores import PolicyScores
from ramify_trainer.learning.labels import Feedback, LabelledTree, OutcomeWeights
from ramify_trainer.learning.metrics import draw_figures
from ramify_trainer.loop.puller import TrainingRecord
from ramify_trainer.loop.report import markdown, write
from ramify_trainer.loop.round_trees import freeze, label_trees, solved_share
from ramify_trainer.loop.state import RoundRecord, State
from search_worlds import new_tree

CONFIGS = Path(__file__).resolve().parents[3] / "trainer" / "ramify_trainer" / "configs"
RIGHT, WRONG = "8 * 3 = 24\n24 / 1 = 24", "8 + 3 = 11\n11 * 1 = 11"
PROBLEM = {"numbers": [1, 3, 8], "target": 24}


def answered(*texts: str, train: bool = True, release: str = "v000001") -> Tree:
    tree = new_tree()
    tree.id, tree.train, tree.task, tree.problem = f"tree_{len(texts)}", train, "countdown", PROBLEM
    tree.prompt = prompt(PROBLEM)
    for i, text in enumerate(texts):
        node = tree.add(
            tree.root, tokens=(i,), logprobs=(-0.5,), text=text, terminal="eos", release=release, value=0.5
        )
        tree.completions.append(Completion(node.id, i + 1, i + 1))
    return tree


async def pulled(*records: TrainingRecord) -> AsyncIterator[TrainingRecord]:
    for record in records:
        yield record


def test_the_shipped_loop_parses_and_trains_on_no_problem_that_it_measures():
    config = LoopConfig.read(CONFIGS / "loop.toml")
    splits = [
        spec.partition("?")[0] for spec in (config.collect.data, config.gate.data, config.held_out.data)
    ]
    assert splits == ["countdown:train", "countdown:dev", "countdown:test"]
    assert config.base == "shipped"


def test_an_unknown_key_is_refused(tmp_path: Path):
    path = tmp_path / "loop.toml"
    path.write_text("[learning]\nlearning_rat = 1e-3\n")
    with pytest.raises(ValidationError, match="learning_rat"):
        LoopConfig.read(path)


def test_a_run_goes_on_from_what_it_last_kept(tmp_path: Path):
    state = State.begin("run", "v000001")
    assert State.load(tmp_path / "state.json") is None
    state.phase, state.upto, state.current.tokens = "gate", 17, 900
    state.save(tmp_path / "state.json")
    assert State.load(tmp_path / "state.json") == state
    state.current.collected = ["tree_1"]
    state.end_round()
    assert (state.round, state.phase, state.history[0].tokens, state.current.round) == (2, "collect", 900, 2)
    assert state.history[0].collected == [], "a long history stays short"


def test_learners_stay_of_the_newest_releases_the_incumbent_and_the_best():
    state = State.begin("run", "v000001")
    for number in range(1, 7):
        state.current.release, state.current.promoted = f"v00000{number + 1}", number != 5
        state.end_round()
    state.incumbent, state.best = "v000004", "v000002"
    assert state.kept_learners(2) == {1, 3, 4, 6}
    state.best = "v000001"
    assert state.kept_learners(1) == {3, 6}


def test_staleness_counts_served_releases_and_knows_no_others():
    state = State.begin("run", "v000001")
    state.served += ["v000003", "v000004"]
    assert [state.staleness(r) for r in ("v000004", "v000003", "v000001")] == [0, 1, 2]
    assert state.staleness("v000002") > 1000


def test_the_entropy_of_draws_is_that_of_the_rounds_own_searches_by_the_release_in_training(tmp_path: Path):
    """Others, carried over or somebody else's, drew at temperatures of their own."""
    own, others, older = answered(WRONG, RIGHT), answered(RIGHT), answered(WRONG)
    for number, (tree, logprob) in enumerate([(own, -0.5), (others, -4.0), (older, -4.0)]):
        tree.id = f"tree_{number}"
        for node in tree.nodes[1:]:
            node.logprobs = (logprob,) * len(node.tokens)
            node.release = "v000001" if tree is older else "v000002"

    async def scenario() -> list[LabelledTree]:
        path, trees = tmp_path / "trees.ndjson", (own, others, older)
        await freeze(pulled(*(TrainingRecord(4, tree.id, tree_to_dict(tree)) for tree in trees)), path)
        stale = {"v000001": 1, "v000002": 0}
        return await label_trees(path, OutcomeWeights(), stale.__getitem__, collected=[own.id, older.id])

    labelled = asyncio.run(scenario())
    assert [one.elsewhere for one in labelled] == [False, True, True]
    assert draw_figures(labelled, 1.0)["entropy"] == pytest.approx(0.5)
    assert "entropy" not in draw_figures(labelled[1:], 1.0)
    assert draw_figures(labelled, 1.0)["pass_at_1"] == pytest.approx((0.5 + 1.0 + 0.0) / 3)


def test_a_round_learns_from_frozen_trees_graded_anew(tmp_path: Path):
    path = tmp_path / "trees.ndjson"
    state = State.begin("run", "v000001")
    state.served.append("v000002")

    async def scenario() -> None:
        tree = answered(WRONG, RIGHT)
        await freeze(pulled(TrainingRecord(4, tree.id, tree_to_dict(tree))), path)
        (found,) = await label_trees(path, OutcomeWeights(), state.staleness)
        assert found.outcomes == {1: 0.0, 2: 1.0}
        assert found.staleness == 1
        assert solved_share([found]) == 1.0

    asyncio.run(scenario())


def test_a_later_verdict_speaks_where_the_verifier_weighs_nothing(tmp_path: Path):
    path = tmp_path / "trees.ndjson"

    async def scenario() -> None:
        tree = answered(RIGHT)
        verdict = TrainingRecord(5, tree.id, feedback=Feedback(1, None, 0.25))
        await freeze(pulled(TrainingRecord(4, tree.id, tree_to_dict(tree)), verdict), path)
        (found,) = await label_trees(path, OutcomeWeights(verifier=0.0), lambda _: 0)
        assert found.outcomes == {1: 0.25}

    asyncio.run(scenario())


def test_the_policys_confidence_is_no_value_to_learn_from(tmp_path: Path):
    path, weights = tmp_path / "trees.ndjson", OutcomeWeights(verifier=0.0, model=1.0)

    async def scenario() -> None:
        valued, confident = answered(RIGHT), answered(WRONG, RIGHT)
        confident.params = dataclasses.replace(confident.params, grader="confidence")
        records = [TrainingRecord(i, t.id, tree_to_dict(t)) for i, t in enumerate((valued, confident))]
        await freeze(pulled(*records), path)
        by_model, by_nobody = await label_trees(path, weights, lambda _: 0)
        assert (by_model.outcomes, by_nobody.outcomes) == ({1: 0.5}, {})
        assert [node.value for node in by_nobody.tree.nodes] == [None, None, None]

    asyncio.run(scenario())


def test_what_is_not_to_be_trained_on_is_read_past(tmp_path: Path):
    path = tmp_path / "trees.ndjson"

    async def scenario() -> None:
        tree = answered(RIGHT, train=False)
        await freeze(pulled(TrainingRecord(9, tree.id, tree_to_dict(tree))), path)
        assert await label_trees(path, OutcomeWeights(), lambda _: 0) == []

    asyncio.run(scenario())


def test_the_report_shows_every_round_and_what_was_served(tmp_path: Path):
    history = [
        RoundRecord(
            round=1,
            release="v000002",
            promoted=True,
            reason="promoted: …",
            steps=40,
            seconds={"train": 61.5, "gate": 12.25},
            canary_seconds=0.5,
        ),
        RoundRecord(round=2, release="v000003", reason="rejected: …", steps=80),
    ]
    held_out = {
        "v000001": PolicyScores({"a": 0.0, "b": 1.0}, {"a": 0.25, "b": 0.5}),
        "v000002": PolicyScores({"a": 1.0, "b": 1.0}, {"a": 0.5, "b": 0.75}),
    }
    table = markdown(history, held_out)
    assert "| base | v000001 | | | | | | | | yes | 50.0 | 37.5 |" in table
    assert "| 1 | v000002 | 0 | 40 | 0 | 61.5 | 12.2 | 0.5 | promoted: … | yes | 100.0 | 62.5 |" in table
    assert "| 2 | v000003 | 0 | 80 | 0 | 0.0 | 0.0 | 0.0 | rejected: … | no |  |  |" in table
    assert "greedy +50.0 [+0.0, +100.0], mean@k +25.0 [+25.0, +25.0]" in table
    write(tmp_path, history, held_out, {})
    assert {p.name for p in tmp_path.iterdir()} == {"results.md", "results.json", "curve.png", "curve.svg"}
