"""Right answers of earlier rounds are imitated again, within their bounds; a temperature follows what is drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fakes_training import TREES, drawn_tree, write_release
from ramify_trainer.config import CollectConfig
from ramify_trainer.learning.config import LearningConfig
from ramify_trainer.learning.labels import LabelledTree
from ramify_trainer.learning.learner import Learner
from ramify_trainer.loop.collection import at_temperature
from ramify_trainer.loop.replay import keep_right, replayed
from ramify_trainer.loop.state import RoundRecord, round_folder

PROMPT = (63, 10)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def learning(**changes: Any) -> LearningConfig:
    return LearningConfig.model_validate(
        {
            "imitate": 1.0,
            "replay_rounds": 2,
            "kl_beta": 0,
            "train_value": False,
            "threads": 1,
            "tracker": "none",
            **changes,
        }
    )


def a_run(folder: Path, *rounds: list[LabelledTree]) -> Path:
    for i, trees in enumerate(rounds, 1):
        (folder / round_folder(i)).mkdir()
        keep_right(trees, 1.0, folder / round_folder(i))
    return folder


def answers(trees: list[LabelledTree]) -> list[tuple[int, ...]]:
    return [tree.tree.sequence(tree.tree.nodes[i]) for tree in trees for i in tree.outcomes]


def right(i: int) -> tuple[int, ...]:
    """The right answer of `drawn_tree(i)`, after its prompt."""
    return (*PROMPT, 97 + i, 10, 97 + i, 0)


def test_answers_of_the_last_rounds_come_back_once_and_the_newest_first(tmp_path: Path) -> None:
    run = a_run(tmp_path, TREES[:1], TREES[1:3], TREES[2:4])
    (again,) = replayed(run, 4, learning(), [])
    assert answers([again]) == [right(2), right(3), right(1)]
    assert again.tree.prompt_tokens == PROMPT
    assert answers(replayed(run, 4, learning(replay_answers=2), [])) == [right(2), right(3)]
    assert answers(replayed(run, 4, learning(replay_rounds=3), [])) == [
        right(2),
        right(3),
        right(1),
        right(0),
    ]
    assert replayed(run, 4, learning(replay_rounds=0), []) == []


def test_an_answer_that_is_drawn_again_counts_by_its_outcome_now(tmp_path: Path) -> None:
    run = a_run(tmp_path, TREES[:2])
    wrong_after_all = replace(drawn_tree(0), outcomes={3: 0.0})
    assert answers(replayed(run, 2, learning(), [wrong_after_all])) == [right(1)]


def test_an_answer_known_of_an_earlier_round_alone_comes_back_as_before(tmp_path: Path) -> None:
    run = a_run(tmp_path, TREES[:1])
    gone_on = replace(drawn_tree(0), learned=frozenset(range(6)))
    assert answers(replayed(run, 2, learning(), [gone_on])) == [right(0)]


def test_a_round_that_is_done_again_keeps_the_same(tmp_path: Path) -> None:
    run = a_run(tmp_path, TREES)
    before = (run / round_folder(1) / "right.ndjson").read_bytes()
    keep_right(TREES, 1.0, run / round_folder(1))
    assert (run / round_folder(1) / "right.ndjson").read_bytes() == before


def test_prompts_and_temperatures_stay_apart(tmp_path: Path) -> None:
    warm = drawn_tree(0)
    warm.tree.sampling = replace(warm.tree.sampling, temperature=1.2)
    elsewhere = drawn_tree(1)
    elsewhere.tree.prompt_tokens = (64, 10)
    again = replayed(a_run(tmp_path, [warm, elsewhere, drawn_tree(2)]), 2, learning(), [])
    assert [(one.tree.prompt_tokens, one.tree.sampling.temperature) for one in again] == [
        (PROMPT, 1.2),
        ((64, 10), 1.0),
        (PROMPT, 1.0),
    ]


def test_what_is_replayed_is_imitated_and_serves_nothing_else(tmp_path: Path) -> None:
    base = write_release(tmp_path).path
    again = replayed(a_run(tmp_path, TREES[:3]), 2, learning(), TREES[3:])

    def trained(config: LearningConfig, trees: list[LabelledTree]) -> tuple[Any, torch.Tensor]:
        learner = Learner.start(config, base / "policy", base / "value", base / "policy", seed=0)
        return learner.round(trees, seed=1), learner.policy.lm_head.weight.detach()

    config = learning(steps_per_round=2, tokens_per_batch=40, policy_learning_rate=1e-2, warmup_steps=0)
    without, plain = trained(config, TREES[3:])
    result, weights = trained(config, [*TREES[3:], *again])
    assert (result.trees, result.refused) == (5, {})
    assert (result.lessons["right_answers"], result.lessons["replayed_answers"]) == (8, 3)
    assert result.draws == without.draws
    assert not torch.equal(weights, plain)
    alone, _ = trained(config.model_copy(update={"imitate": 0.0}), again)
    assert alone.steps == 0
    with_value = config.model_copy(update={"imitate": 0.0, "train_value": True})
    assert trained(with_value, again)[0].steps == 0


# The temperature


def follows(**changes: Any) -> CollectConfig:
    return CollectConfig.model_validate(
        {"temperature": {"entropy": 0.3, "gain": 1.0, "low": 0.5, "high": 1.5, **changes}}
    )


def drew(*entropies: float | None) -> list[RoundRecord]:
    return [
        RoundRecord(round=i, training={} if h is None else {"draws/entropy": h})
        for i, h in enumerate(entropies, 1)
    ]


@pytest.mark.parametrize(
    ("entropies", "expected"),
    [
        ((), 1.0),
        ((0.3,), 1.0),
        ((0.25,), 1.2),
        ((0.25, 0.6), 0.6),
        ((0.0,), 1.5),
        ((9.0,), 0.5),
        ((0.25, None), 1.2),
    ],
)
def test_the_temperature_makes_up_for_what_entropy_is_missing(
    entropies: tuple[float | None, ...], expected: float
) -> None:
    asked = at_temperature(follows(), drew(*entropies))
    assert asked.sampling == {"temperature": pytest.approx(expected, abs=1e-4)}


def test_without_a_target_the_searches_are_asked_for_as_they_stand() -> None:
    plain = CollectConfig(sampling={"top_p": 0.9})
    assert at_temperature(plain, drew(0.1)) is plain


@settings(deadline=None)
@given(st.lists(st.floats(0, 5), max_size=6), st.floats(0.1, 2))
def test_the_temperature_keeps_to_its_bounds(entropies: list[float], gain: float) -> None:
    temperature = at_temperature(follows(gain=gain), drew(*entropies)).first_temperature
    assert 0.5 <= temperature <= 1.5


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"temperature": {"entropy": 0.3, "low": 1.2, "high": 0.8}}, r"low is 1\.2, above high, 0\.8"),
        (
            {"temperature": {"entropy": 0.3}, "sampling": {"temperature": 0}},
            r"sampling\.temperature is 0, while temperature\.low is 0\.7",
        ),
    ],
)
def test_bounds_that_cannot_be_kept_are_refused(settings: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        CollectConfig.model_validate(settings)
