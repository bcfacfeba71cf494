"""Countdown's rules: what an answer is, when it is right, and when two answers are the same."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.rewards.countdown import (
    apply,
    check_problem,
    final_answer,
    grade,
    parse_answer,
    parse_prompt,
    prompt,
)
from ramify.rewards.countdown_data import walk

PROBLEM = {"numbers": [3, 5, 7, 8], "target": 24}
RIGHT = "7 - 5 = 2\n8 * 3 = 24\n24 * 2 = 48"

numbers_lists = st.lists(st.integers(1, 13), min_size=2, max_size=6)


def test_a_right_answer_has_outcome_one_and_says_so() -> None:
    verdict = grade({"numbers": [3, 5, 7, 8], "target": 48}, RIGHT)
    assert (verdict.outcome, verdict.reason) == (1.0, "correct")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the answer is empty"),
        (" \n ", "the answer is empty"),
        ("7 - 5 = 2\n8 * 3 = 24", "2 numbers are left, not 1: [2, 24]"),
        ("8 * 3 = 24", "3 numbers are left, not 1: [5, 7, 24]"),
        (RIGHT, "the result is 48, not 24"),
        ("8 * 3 = 25\n7 - 5 = 2\n25 - 2 = 23", "line 1, `8 * 3 = 25`: the result is 24"),
        ("8 * 8 = 64", "line 1, `8 * 8 = 64`: 8 is not available"),
        ("8 * 4 = 32", "line 1, `8 * 4 = 32`: 4 is not available"),
        (
            "3 + 5 = 8",
            "line 1, `3 + 5 = 8`: not allowed (larger operand first, exact division, results 0 to 199)",
        ),
        (
            "8 / 3 = 2",
            "line 1, `8 / 3 = 2`: not allowed (larger operand first, exact division, results 0 to 199)",
        ),
        ("24", "a line is not of the form `a op b = c`"),
        ("8*3=24", "a line is not of the form `a op b = c`"),
        ("8 * 3 = 24\n\n7 - 5 = 2", "a line is not of the form `a op b = c`"),
        ("3 5 7 8 to 24\n8 * 3 = 24", "a line is not of the form `a op b = c`"),
        ("8 * 3 = 24 = 24", "a line is not of the form `a op b = c`"),
        ("8 ** 3 = 512", "a line is not of the form `a op b = c`"),
        ("08 * 3 = 24", "a line is not of the form `a op b = c`"),
        ("٨ * ٣ = 24", "a line is not of the form `a op b = c`"),
        ("__import__('os').abort()", "a line is not of the form `a op b = c`"),
    ],
)
def test_a_wrong_answer_has_outcome_zero_and_a_reason(text: str, reason: str) -> None:
    verdict = grade(PROBLEM, text)
    assert (verdict.outcome, verdict.reason) == (0.0, reason)


def test_a_number_given_twice_can_be_used_twice_and_not_three_times() -> None:
    problem = {"numbers": [4, 4, 2], "target": 18}
    assert grade(problem, "4 * 4 = 16\n16 + 2 = 18").outcome == 1.0
    assert grade(problem, "4 * 4 = 16\n16 + 4 = 20").outcome == 0.0


def test_division_by_zero_is_a_wrong_answer_and_no_error() -> None:
    assert grade({"numbers": [3, 3, 5], "target": 0}, "3 - 3 = 0\n5 / 0 = 0").outcome == 0.0
    assert grade({"numbers": [3, 3, 5], "target": 0}, "3 - 3 = 0\n5 * 0 = 0").outcome == 1.0


def test_results_end_at_199() -> None:
    assert apply(13, "*", 15) is None
    assert apply(100, "+", 99) == 199
    assert apply(100, "+", 100) is None
    assert apply(20, "*", 10) is None


def test_blanks_around_the_answer_do_not_matter() -> None:
    problem = {"numbers": [8, 3], "target": 24}
    assert grade(problem, "\n8 * 3 = 24\n").outcome == 1.0


def test_an_endless_answer_is_wrong_without_being_read() -> None:
    assert grade(PROBLEM, "8 * 3 = 24\n" * 100_000).outcome == 0.0
    assert final_answer("8 * 3 = 24\n" * 100_000) is None
    assert parse_prompt("3 " * 100_000) is None


@given(st.text())
def test_no_text_makes_the_grader_raise(text: str) -> None:
    assert grade(PROBLEM, text).outcome in (0.0, 1.0)
    final_answer(text)
    parse_prompt(text)


@given(numbers_lists, st.integers())
def test_every_legal_walk_is_a_right_answer_to_the_problem_it_ends_at(numbers: list[int], seed: int) -> None:
    steps = walk(numbers, random.Random(seed))
    text = "\n".join(map(str, steps))
    assert grade({"numbers": numbers, "target": steps[-1].c}, text).outcome == 1.0
    assert parse_answer(text) == steps


@given(numbers_lists, st.integers(), st.integers(0, 10), st.integers(1, 5))
def test_changing_any_result_of_a_right_answer_makes_it_wrong(
    numbers: list[int], seed: int, line: int, change: int
) -> None:
    steps = walk(numbers, random.Random(seed))
    lines = [str(step) for step in steps]
    line %= len(lines)
    lines[line] = f"{lines[line].rpartition(' ')[0]} {steps[line].c + change}"
    assert grade({"numbers": numbers, "target": steps[-1].c}, "\n".join(lines)).outcome == 0.0


@given(st.lists(st.integers(1, 199), min_size=1, max_size=8), st.integers(0, 199))
def test_a_prompt_states_its_problem_with_the_numbers_in_order(numbers: list[int], target: int) -> None:
    stated = parse_prompt(prompt({"numbers": numbers, "target": target}))
    assert stated == {"numbers": sorted(numbers), "target": target}


def test_a_prompt_in_another_order_is_read_too() -> None:
    assert parse_prompt("8 3 7 5 to 24") == {"numbers": [8, 3, 7, 5], "target": 24}


@pytest.mark.parametrize(
    "text", ["", "3 5 7 8", "3 5  7 to 24", "to 24", "3 5 to 1000", "0 5 to 24", "3 5 to 24\n\n"]
)
def test_what_is_no_prompt_states_no_problem(text: str) -> None:
    assert parse_prompt(text) is None


@pytest.mark.parametrize(
    "problem",
    [
        {},
        {"numbers": [1, 2]},
        {"numbers": [], "target": 3},
        {"numbers": "12", "target": 3},
        {"numbers": [1, True], "target": 3},
        {"numbers": [1, 2.0], "target": 3},
        {"numbers": [0, 2], "target": 2},
        {"numbers": [1] * 9, "target": 3},
        {"numbers": [1, 2], "target": 200},
        {"numbers": [1, 2], "target": "3"},
        {"numbers": [1, 2], "target": 3, "answer": "1 + 2"},
    ],
)
def test_a_malformed_problem_is_refused(problem: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"countdown problem|'numbers'|'target'"):
        check_problem(problem)


def test_the_example_of_the_documentation_holds() -> None:
    assert prompt(PROBLEM) == "3 5 7 8 to 24\n"
    assert final_answer("5 + 3 = 8\n8 * 2 = 16") == "2 * (5 + 3)"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("8 * 3 = 24\n7 - 5 = 2\n24 + 2 = 26", "7 - 5 = 2\n8 * 3 = 24\n24 + 2 = 26"),
        ("5 + 3 = 8\n8 + 7 = 15", "7 + 3 = 10\n10 + 5 = 15"),
        ("8 - 5 = 3\n9 - 3 = 6", "9 + 5 = 14\n14 - 8 = 6"),
        ("8 / 2 = 4\n4 * 3 = 12", "8 * 3 = 24\n24 / 2 = 12"),
    ],
)
def test_equivalent_expressions_are_one_final_answer(one: str, other: str) -> None:
    assert final_answer(one) == final_answer(other) is not None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("8 * 3 = 24", "8 * 3 = 25"),
        ("8 - 3 = 5", "8 + 3 = 11"),
        ("8 - 5 = 3\n3 - 2 = 1", "5 - 2 = 3\n8 - 3 = 5"),
    ],
)
def test_different_calculations_are_different_final_answers(one: str, other: str) -> None:
    assert final_answer(one) != final_answer(other)


@pytest.mark.parametrize("text", ["", "8 * 3 =", "8 * 3 = 24\n7 - 5 = 2", "8 * 3 = 24\n7"])
def test_an_unfinished_answer_is_no_final_answer(text: str) -> None:
    assert final_answer(text) is None


@given(numbers_lists, st.integers())
def test_every_legal_walk_has_a_final_answer_that_names_each_number(numbers: list[int], seed: int) -> None:
    final = final_answer("\n".join(map(str, walk(numbers, random.Random(seed)))))
    assert final is not None
    named = [int(word) for word in final.replace("(", " ").replace(")", " ").split() if word.isdigit()]
    assert sorted(named) == sorted(numbers)
