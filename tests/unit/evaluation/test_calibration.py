from __future__ import annotations

import math
import random

import pytest

from fakes_evaluation import FakeBackend, problem, value
from ramify.evaluation.calibration import JudgedAnswer, fit, judged_answers
from ramify.evaluation.runner import ProblemRefused, SearchFailed, seed_of


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def drawn(a: float, b: float, count: int = 20_000) -> list[JudgedAnswer]:
    """Answers that are right as often as sigmoid(a · logit + b) says."""
    rng = random.Random(0)
    logits = [rng.gauss(0, 2) for _ in range(count)]
    return [(sigmoid(x), rng.random() < sigmoid(a * x + b)) for x in logits]


@pytest.mark.parametrize(("a", "b"), [(1.0, 0.0), (0.4, -1.2), (2.5, 0.7), (-0.5, 0.0)])
def test_a_fit_finds_the_calibration_that_answers_were_drawn_with(a: float, b: float) -> None:
    found = fit(drawn(a, b))
    assert (found.a, found.b) == pytest.approx((a, b), abs=0.1)
    assert found.loss[1] <= found.loss[0] + 1e-3
    assert found.brier[1] <= found.brier[0] + 1e-3
    assert (found.auc > 0.5) == (a > 0)


def test_the_calibration_that_values_had_is_taken_off() -> None:
    raw = drawn(0.4, -1.2)
    given = [(sigmoid(2 * logit_of(value) + 1), right) for value, right in raw]
    before, after = fit(raw), fit(given, (2.0, 1.0))
    assert (after.a, after.b) == pytest.approx((before.a, before.b), abs=1e-3)


def logit_of(value: float) -> float:
    return math.log(value / (1 - value))


def test_answers_that_values_tell_apart_wholly_do_not_make_it_endless() -> None:
    found = fit([(0.9, True), (0.8, True), (0.2, False), (0.0, False)])
    assert found.auc == 1.0
    assert 0 < found.a < 100


def test_equal_values_share_their_rank() -> None:
    answers = [(0.5, True), (0.5, False), (0.7, True), (0.2, False)]
    assert fit(answers).auc == pytest.approx((1 + 1 + 1 + 0.5) / 4)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([], "0 of 0 answers are right"),
        ([(0.1, True), (0.2, True)], "2 of 2 answers are right: a fit needs"),
        ([(0.1, True), (0.1, False)], "all 2 answers have the value 0.1"),
    ],
)
def test_what_cannot_be_fitted_is_said(answers: list[JudgedAnswer], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(answers)


@pytest.mark.anyio
async def test_every_draw_counts_with_the_verifiers_word_on_it() -> None:
    backend, told = FakeBackend(), list[int]()
    found = await judged_answers(backend, [problem(i) for i in range(3)], 4, 1000, 0, 2, told.append)
    assert (len(found), told, backend.most_running) == (12, [1, 2, 3], 2)
    # The task of the fake problems wants a last line of b; the fake scorer is fond of b.
    assert {right for _, right in found} == {True, False}
    assert {given for given, _ in found} <= {
        value(x + y) for x in ("a\n", "b\n", "c\n") for y in ("a\n", "b\n", "c\n")
    }


@pytest.mark.anyio
async def test_a_model_judges_and_a_problem_has_its_own_seed_and_may_be_refused() -> None:
    backend, told = FakeBackend(refuse=1), list[int]()
    found = await judged_answers(backend, [problem(i) for i in range(3)], 4, 1000, 7, 1, told.append)
    assert (len(found), told) == (8, [1, 2, 3])
    assert [seed for *_, seed in backend.asked] == [seed_of(problem(i), 7) for i in range(3)]
    assert {method.search["grader"] for method in backend.methods} == {"model"}
    with pytest.raises(ProblemRefused, match="too long"):
        await judged_answers(FakeBackend(refuse=0), [problem(0)], 4, 1000, 7, 1, told.append)


@pytest.mark.anyio
async def test_a_search_that_fails_ends_the_others() -> None:
    backend = FakeBackend(fail_on=0)
    with pytest.raises(SearchFailed, match=r"'p0' ended failed: told to"):
        await judged_answers(backend, [problem(i) for i in range(9)], 4, 1000, 0, 1, lambda done: None)
    assert len(backend.asked) < 9
