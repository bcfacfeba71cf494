"""Value models compared on the same texts, on judgements made for the purpose."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from fakes_training import with_value_head
from models import TWO_MODELS
from ramify.search import records
from ramify.search.cutting import cut
from ramify.tokens import TokenText
from ramify.weights import load_release, shipped
from ramify.weights.manifest import Action
from ramify_trainer.gate.decision import Comparison, decide
from ramify_trainer.gate.policy_scores import PolicyScores, SampledAnswer
from ramify_trainer.gate.value_scores import (
    ValuePredictions,
    compare_values,
    end_values,
    judged_places,
    pool_answers,
    predict_values,
)
from ramify_trainer.learning.networks import load_judge

PROBLEMS = 100


def of(value: np.ndarray, outcome: np.ndarray, finished: bool = True) -> ValuePredictions:
    """Texts of as many problems, in turn."""
    problem = np.arange(len(value)) % PROBLEMS
    return ValuePredictions(
        problem, value.astype(float), outcome.astype(float), np.full(len(value), finished)
    )


def noisy(noise: float, seed: int = 1) -> ValuePredictions:
    random = np.random.default_rng(0)
    outcome = random.random(800) < 0.4
    value = np.clip(outcome + noise * np.random.default_rng(seed).standard_normal(800), 0, 1)
    return of(value, outcome)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=60))
def test_the_auc_is_the_share_of_pairs_in_order(rows: list[tuple[int, bool]]) -> None:
    value, outcome = np.array([v / 5 for v, _ in rows]), np.array([o for _, o in rows])
    pairs = list(itertools.product(value[outcome], value[~outcome]))
    expected = (
        np.mean([(right > wrong) + 0.5 * (right == wrong) for right, wrong in pairs]) if pairs else None
    )
    found = of(value, outcome).figures().get("value_auc")
    assert found == (None if expected is None else pytest.approx(expected))


def test_errors_by_hand() -> None:
    figures = of(np.array([0.9, 0.2, 0.95]), np.array([1, 0, 0])).figures()
    assert figures["value_brier"] == pytest.approx((0.01 + 0.04 + 0.9025) / 3)
    assert figures["value_calibration_error"] == pytest.approx((0.2 + abs(0.9 + 0.95 - 1)) / 3)


def test_the_same_model_is_no_worse_and_a_clearly_worse_one_is_found() -> None:
    assert {c.high for c in compare_values("best", noisy(0.4), noisy(0.4), 0.02, 0)} == {0.0}
    worse = compare_values("incumbent", noisy(1.5), noisy(0.4), 0.02, 0)
    assert [c.figure for c in worse] == ["value_auc", "value_brier"]
    assert all(c.difference < c.high < -0.05 and not c.passed for c in worse)
    better = compare_values("incumbent", noisy(0.4), noisy(1.5), 0.02, 0)
    assert all(0 < c.difference < c.high and c.passed for c in better)


def test_what_cannot_be_told_is_left_out() -> None:
    right = of(np.array([0.5, 0.6]), np.array([1, 1]))
    assert [c.figure for c in compare_values("best", right, right, 0.0, 0)] == ["value_brier"]
    nothing = of(np.array([]), np.array([]))
    assert compare_values("best", nothing, nothing, 0.0, 0) == []
    assert nothing.figures() == {}


def test_judgements_of_other_texts_are_refused() -> None:
    with pytest.raises(ValueError, match="judged other texts"):
        compare_values("best", noisy(0.4), of(np.array([0.5]), np.array([1])), 0.0, 0)


def test_a_value_model_that_falls_is_enough_to_reject() -> None:
    same = PolicyScores({"p": 1.0, "q": 0.0}, {"p": 1.0, "q": 0.0})
    fell = Comparison("incumbent", "value_auc", -0.1, -0.08, 0.02)
    decision = decide(same, same, same, 0.02, 0, [fell])
    assert not decision.promoted
    assert decision.reason.startswith("rejected: at worst value_auc -0.100 against the incumbent")
    assert decision.figures()["value_auc_against_incumbent_high"] == -0.08


def test_one_pass_an_answer_gives_the_value_at_every_step_and_at_the_end() -> None:
    base = load_release(TWO_MODELS)
    tokenizer = AutoTokenizer.from_pretrained(base.policy_path)
    prompt = tuple(tokenizer.encode("3 5 7 8 to 24\n"))
    text = "8 * 3 = 24\n7 - 5 = 2\n24 * 2 = 48"
    tokens = (*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id)
    cut = tokens[:9]
    pool = pool_answers(
        PolicyScores({"p": 0.0}, {}, {"p": [SampledAnswer(prompt, tokens, True, 1.0)]}),
        PolicyScores({"p": 0.0}, {}, {"p": [SampledAnswer(prompt, cut, False, 0.0)]}),
    )
    found = predict_values(
        base.path, (2.0, 0.5), pool, base.manifest.default_action, lambda done, total: None
    )
    ends = [i for i, t in enumerate(tokens) if tokenizer.decode([t]) == "\n"]
    assert found.finished.tolist() == [False, False, True, False]
    assert found.outcome.tolist() == [1.0, 1.0, 1.0, 0.0]
    model = load_judge(base.policy_path, base.path / "value")
    texts = [[*prompt, *tokens[: end + 1]] for end in (*ends, len(tokens) - 1, ends[0])]
    assert found.value.tolist() == pytest.approx(end_values(model, texts, (2.0, 0.5)), abs=1e-6)


def test_a_value_head_is_asked_before_what_only_closes_a_step_or_an_answer(tmp_path: Path) -> None:
    flat = (0.01, 0.0)  # a random head's logits are large
    folder = with_value_head(shipped() / "policy", tmp_path)
    judge = load_judge(folder / "policy", folder / "value")
    tokenizer = AutoTokenizer.from_pretrained(folder / "policy")
    prompt = tuple(tokenizer.encode("3 5 7 8 to 24\n"))
    tokens = (*tokenizer.encode("8 * 3 = 24\n7 - 5 = 2", add_special_tokens=False), tokenizer.eos_token_id)
    pool = {"p": [SampledAnswer(prompt, tokens, True, 1.0)]}
    found = predict_values(folder, flat, pool, Action(), lambda done, total: None)
    newline = tokens.index(tokenizer.encode("\n", add_special_tokens=False)[-1])
    open_ended = [[*prompt, *tokens[:newline]], [*prompt, *tokens[:-1]]]
    assert found.finished.tolist() == [False, True]
    assert found.value.tolist() == pytest.approx(end_values(judge, open_ended, flat), abs=1e-6)
    assert found.value[0] != pytest.approx(found.value[1], abs=1e-3)


@pytest.mark.parametrize(
    ("stop", "pieces", "steps"),
    [
        ("\n", ["x = 1", "\n    ", "y = 2", "\n    ", "y = 2", "\n", "z", "z", "z"], [1, 3, 5]),
        ("\n\n", ["x = 1", "\n", "\n", "y = 2", "\n", "\n", "z", "z", "z"], [2, 5]),
        ("\n", ["a", "b", "c", "d", "e", "\n", "z", "z", "z"], [3, 5]),
    ],
    ids=["a delimiter inside a token", "a delimiter of two tokens", "a step at its cap"],
)
def test_the_gate_judges_at_the_ends_of_the_steps_that_the_search_cuts(
    stop: str, pieces: list[str], steps: list[int]
) -> None:
    words = sorted({*pieces, "?"})
    tokens = tuple(words.index(piece) for piece in pieces)
    text = TokenText(lambda ids: "".join(words[i] for i in ids), len(words), words.index("?"))
    written, ends = text.spell((0,), tokens)
    drawn = records.Continuation(tokens, written, (0.0,) * len(tokens), ends, "eos", "r")
    searched = [len(action.tokens) for action in cut(drawn, records.Action("step", (stop,), 4))]
    assert [sum(searched[: i + 1]) - 1 for i in range(len(searched) - 1)] == steps
    judged_at = judged_places(
        SampledAnswer((0,), tokens, True, 1.0), text, Action(stop=(stop,), max_tokens=4)
    )
    assert judged_at == [*(1 + step for step in steps), len(tokens)]
