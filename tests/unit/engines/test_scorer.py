from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.engines import EngineError, RawSample, SampleRequest, Serving
from ramify.engines.limiter import EngineLimiter
from ramify.engines.scorer import TrunkScorer, VllmScorer, chains, sigmoid
from ramify.search.records import Score


class Logits:
    """An engine whose logit is what it was made with, or `law` of the tokens so far."""

    def __init__(self, *logits: list[float], causal: bool = False) -> None:
        self.logits = list(logits)
        self.causal = causal
        self.asked: list[tuple[Sequence[int], bool]] = []

    async def classify(self, requests: Iterable[tuple[Sequence[int], bool]]) -> list[list[list[float]]]:
        self.asked = list(requests)
        if self.logits:
            return [[values] for values in self.logits]
        return [
            [[law(p[: i + 1])] for i in range(len(p))] if everywhere else [[law(p)]]
            for p, everywhere in self.asked
        ]


def law(tokens: Sequence[int]) -> float:
    return math.sin(sum((i + 1) * t for i, t in enumerate(tokens)))


def score(
    engine: Logits,
    sequences: Sequence[Sequence[int]],
    calibration: tuple[float, float] = (1.0, 0.0),
    **options: object,
) -> list[Score]:
    serving = Serving(release="v000001", calibration=calibration)
    scorer = VllmScorer(engine, EngineLimiter(8, 8), lambda: serving, **options)  # type: ignore[arg-type]
    return asyncio.run(scorer.score(sequences))


def test_a_value_is_the_sigmoid_of_the_calibrated_logit_once() -> None:
    (judged,) = score(Logits([1.5]), [[1, 2]], calibration=(2.0, -1.0))
    assert judged == Score(pytest.approx(1 / (1 + math.exp(-2.0))), "v000001")


def test_sigmoid_holds_at_the_far_ends() -> None:
    assert (sigmoid(-1000.0), sigmoid(0.0), sigmoid(1000.0)) == (0.0, 0.5, 1.0)


def test_a_wrong_number_of_values_is_an_error() -> None:
    with pytest.raises(EngineError, match="2 sequences were sent to the value model and 1 judgements"):
        score(Logits([0.0]), [[1], [2]])


def test_several_values_for_one_sequence_are_an_error() -> None:
    with pytest.raises(EngineError, match="3 values for one sequence"):
        score(Logits([0.0, 1.0, 2.0]), [[1]])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_is_an_error(bad: float) -> None:
    with pytest.raises(EngineError, match=r"gave .* for a sequence"):
        score(Logits([bad]), [[1]])


def test_ids_are_translated_for_a_value_model_with_another_tokenizer() -> None:
    engine = Logits([0.0])
    score(engine, [[1, 2]], write=lambda sequences: [[t + 100 for t in s] for s in sequences])
    assert engine.asked == [([101, 102], False)]


def test_a_judges_input_is_written_while_others_are_served() -> None:
    threads: list[threading.Thread] = []

    def write(sequences: Sequence[Sequence[int]]) -> list[list[int]]:
        threads.append(threading.current_thread())
        return [list(s) for s in sequences]

    score(Logits([0.0]), [[1, 2]], write=write)
    assert threads != [threading.current_thread()]


def test_nothing_to_judge_asks_nothing() -> None:
    engine = Logits()
    assert score(engine, []) == []
    assert engine.asked == []


SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), max_size=12)


@settings(deadline=None, max_examples=50)
@given(sequences=SEQUENCES)
def test_every_sequence_is_judged_once_and_begins_what_it_is_judged_with(sequences: list[list[int]]) -> None:
    groups = chains(sequences)
    assert sorted(i for group in groups for i in group) == list(range(len(sequences)))
    for head, *rest in groups:
        assert all(sequences[head][: len(sequences[i])] == sequences[i] for i in rest)


@settings(deadline=None, max_examples=50)
@given(sequences=SEQUENCES)
def test_judging_in_one_pass_gives_what_judging_one_by_one_gives(sequences: list[list[int]]) -> None:
    assert score(Logits(causal=True), sequences) == score(Logits(), sequences)


def test_the_steps_of_an_answer_are_one_request_of_a_causal_model_only() -> None:
    answer = [[1, 2], [1, 2, 3, 4], [1, 2, 3, 4, 5]]
    causal, other = Logits(causal=True), Logits()
    score(causal, [*answer, [9]])
    score(other, answer)
    assert sorted(causal.asked) == [([1, 2, 3, 4, 5], True), ([9], False)]
    assert other.asked == [(sequence, False) for sequence in answer]


def test_a_long_cached_prompt_is_not_computed_afresh_for_a_few_steps() -> None:
    prompt = [1] * 500
    engine = Logits(causal=True)
    score(engine, [[*prompt, 2], [*prompt, 2, 3]])
    assert [everywhere for _, everywhere in engine.asked] == [False, False]


def test_a_wrong_number_of_positions_is_an_error() -> None:
    with pytest.raises(EngineError, match="judged 1 positions in place of 3"):
        score(Logits([0.0], causal=True), [[1, 2], [1, 2, 3]])


class Head:
    """An engine with a value head, whose logit is `law` of the tokens so far."""

    def __init__(self, *, blind: bool = False) -> None:
        self.asked: list[SampleRequest] = []
        self.blind = blind

    async def generate(self, requests: Sequence[SampleRequest]) -> list[RawSample]:
        self.asked = list(requests)
        return [RawSample([0], [0.0], False, logits=[] if self.blind else [law(r.prompt)]) for r in requests]


def score_by_head(engine: Head, sequences: Sequence[Sequence[int]]) -> list[float]:
    limiter, closing = EngineLimiter(8, 8), {8, 9}
    scorer = TrunkScorer(engine, limiter, Serving, lambda: closing)  # type: ignore[arg-type]
    return [one.value for one in asyncio.run(scorer.score(sequences))]


def test_a_value_head_judges_at_the_state_before_a_last_token_that_only_closes() -> None:
    engine = Head()
    values = score_by_head(engine, [[1, 2], [1, 2, 9], [1, 2, 8, 9], [1, 9, 2]])
    states = [(1, 2), (1, 2, 8), (1, 9, 2)]
    assert [request.prompt for request in engine.asked] == states  # what is asked twice is judged once
    assert {request.params.max_tokens for request in engine.asked} == {1}
    first, second, third = (sigmoid(law(state)) for state in states)
    assert values == [first, first, second, third]


@pytest.mark.parametrize("nothing", [[], [9]])
def test_a_value_head_does_not_judge_nothing(nothing: list[int]) -> None:
    with pytest.raises(EngineError, match="cannot be judged"):
        score_by_head(Head(), [[1], nothing])


def test_an_engine_that_gives_no_logit_is_an_error() -> None:
    with pytest.raises(EngineError, match="gave no logit"):
        score_by_head(Head(blind=True), [[1]])
