"""Labels of single lines for the value model, against the grader."""

from __future__ import annotations

import numpy as np
import pytest

from ramify.rewards.countdown import grade
from research.bootstrap.rollouts import Rollouts
from research.bootstrap.soundness import inspect, read_lines
from research.bootstrap.tokenizer import EOS, NEWLINE, VOCABULARY
from research.bootstrap.value import written_lines
from research.bootstrap.verification import plant_faults
from research.bootstrap.walks import Walks, answer_tokens, prompt_tokens

NUMBERS = np.array([[2, 3, 4]])


def judged(*lines: tuple[int, str, int, int]) -> tuple[list[bool], list[bool], list[int]]:
    steps = np.array([[(a, "+-*/".index(op), b, c) for a, op, b, c in lines]])
    found = inspect(NUMBERS, steps)
    return found.sound[0].tolist(), found.judged[0].tolist(), found.results[0].tolist()


@pytest.mark.parametrize(
    ("lines", "sound", "results"),
    [
        ([(4, "*", 3, 12), (12, "*", 2, 24)], [True, True], [12, 24]),
        ([(4, "*", 3, 13), (13, "*", 2, 26)], [False, True], [12, 26]),
        ([(3, "-", 4, 1), (2, "*", 1, 2)], [False, True], [-1, 2]),
        ([(4, "/", 3, 1), (2, "+", 1, 3)], [False, True], [-1, 3]),
        ([(4, "+", 3, 7), (7, "*", 3, 21)], [True, False], [7, 21]),
    ],
)
def test_a_line_is_judged_by_its_own_operands_and_result(
    lines: list[tuple[int, str, int, int]], sound: list[bool], results: list[int]
) -> None:
    assert judged(*lines) == (sound, [True, True], results)


def test_after_an_operand_that_is_not_there_nothing_is_judged() -> None:
    sound, meant, _ = judged((4, "+", 4, 8), (8, "+", 2, 10))
    assert (sound[0], meant) == (False, [True, False])


@pytest.mark.parametrize("count", [3, 6])
def test_an_answer_whose_lines_are_all_sound_is_what_the_grader_finds_faultless(count: int) -> None:
    rng = np.random.default_rng(count)
    checked = plant_faults(*Walks(count, "train", rng).take(500), rng, exact_from=2)
    whole = checked.lines.sound.all(axis=1)
    assert 0.3 < whole.mean() < 0.7
    for numbers, steps, faultless in zip(checked.numbers, checked.steps, whole, strict=True):
        if (numbers > 0).all():
            text = "\n".join(f"{a} {'+-*/'[op]} {b} = {c}" for a, op, b, c in steps)
            problem = {"numbers": numbers.tolist(), "target": int(steps[-1, 3])}
            assert (grade(problem, text).reason == "correct") == faultless


def test_lines_are_read_back_from_tokens_up_to_the_first_of_another_form() -> None:
    steps = np.array([[(4, 2, 3, 12), (12, 2, 2, 24)]])
    tokens = answer_tokens(steps)
    read, formed = read_lines(tokens)
    assert (read == steps).all()
    assert formed.all()
    tokens[0, 3] = NEWLINE
    assert not read_lines(tokens)[1].any()
    cut = answer_tokens(steps)
    cut[0, 6:] = 0
    assert read_lines(cut)[1].tolist() == [[True, False]]


def test_what_a_prompt_has_already_taken_is_not_there_for_the_lines_that_follow() -> None:
    begun = answer_tokens(np.array([[(4, 2, 3, 12), (2, 0, 0, 2)]]))[:, :6]
    prompts = np.column_stack([prompt_tokens(NUMBERS, np.array([24])), begun])
    right, twice = (answer_tokens(np.array([[line]])) for line in ((12, 2, 2, 24), (12, 0, 3, 15)))
    assert VOCABULARY[int(right[0, -1])] == VOCABULARY[EOS]
    answers = np.stack([right, twice], axis=1).astype(np.int16)
    lines = written_lines(Rollouts(prompts.astype(np.int16), answers, np.zeros((1, 2), np.float32), count=3))
    assert lines.sound.tolist() == [[[True], [False]]]
