from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence

import pytest

from ramify.engines import BadScores, EngineError
from ramify.engines.admission import Slots
from ramify.engines.recording import Recorder
from ramify.engines.scorer import NoScorer, VllmScorer, sigmoid
from ramify.search.records import Score


class Logits:
    """An engine that answers with what it was made with."""

    def __init__(self, *logits: list[float]) -> None:
        self.logits = list(logits)
        self.prompts: list[Sequence[int]] = []

    async def classify(self, prompts: Iterable[Sequence[int]]) -> list[list[float]]:
        self.prompts += prompts
        return self.logits


def score(engine: Logits, sequences: Sequence[Sequence[int]], **options: object) -> list[Score]:
    scorer = VllmScorer(engine, Slots(8, 8), Recorder(), "v000001", **options)  # type: ignore[arg-type]
    return asyncio.run(scorer.score(sequences))


def test_a_value_is_the_sigmoid_of_the_calibrated_logit_once() -> None:
    (judged,) = score(Logits([1.5]), [[1, 2]], calibration=(2.0, -1.0))
    assert judged == Score(pytest.approx(1 / (1 + math.exp(-2.0))), "v000001")


def test_sigmoid_holds_at_the_far_ends() -> None:
    assert (sigmoid(-1000.0), sigmoid(0.0), sigmoid(1000.0)) == (0.0, 0.5, 1.0)


def test_a_wrong_number_of_values_is_an_error() -> None:
    with pytest.raises(BadScores, match="2 sequences were sent to the value model and 1 values"):
        score(Logits([0.0]), [[1], [2]])


def test_several_values_for_one_sequence_are_an_error() -> None:
    with pytest.raises(BadScores, match="3 values for one sequence"):
        score(Logits([0.0, 1.0, 2.0]), [[1]])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_is_an_error(bad: float) -> None:
    with pytest.raises(BadScores, match=r"gave .* for a sequence"):
        score(Logits([bad]), [[1]])


def test_ids_are_translated_for_a_value_model_with_another_tokenizer() -> None:
    engine = Logits([0.0])
    score(engine, [[1, 2]], translate=lambda tokens: [t + 100 for t in tokens])
    assert engine.prompts == [[101, 102]]


def test_nothing_to_judge_asks_nothing() -> None:
    engine = Logits()
    assert score(engine, []) == []
    assert engine.prompts == []


def test_without_a_value_model_the_error_says_what_to_set() -> None:
    with pytest.raises(EngineError, match="--value PATH"):
        asyncio.run(NoScorer().score([[1]]))
