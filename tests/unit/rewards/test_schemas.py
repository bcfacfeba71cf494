"""Problems of every task: what is refused, and how the refusal names the field and the limit."""

from __future__ import annotations

from typing import Any

import pytest

from ramify.rewards import registry
from ramify.rewards.errors import BadProblem, BadTask


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("countdown", {"numbers": [3, 5, 7, 8], "target": 24}),
        ("countdown", {"numbers": [199], "target": 199}),
        ("countdown", {"numbers": [1] * 8, "target": 0}),
        ("exact", {"answer": "Paris"}),
        ("exact", {"answer": "Paris", "ignore_case": True}),
        ("math", {"answer": "\\frac{1}{2}"}),
        ("math", {"answer": "x" * 1000}),
        ("none", {}),
    ],
)
def test_a_problem_that_fits_its_schema_is_bound(name: str, problem: dict[str, Any]) -> None:
    assert registry.task(name, problem) is not None


@pytest.mark.parametrize(
    ("name", "problem", "field", "limit"),
    [
        ("countdown", {"target": 24}, "numbers", "missing"),
        ("countdown", {"numbers": [3, 5]}, "target", "missing"),
        ("countdown", {"numbers": [], "target": 24}, "numbers", "at least 1"),
        ("countdown", {"numbers": [1] * 9, "target": 24}, "numbers", "at most 8"),
        ("countdown", {"numbers": "3 5 7 8", "target": 24}, "numbers", "array"),
        ("countdown", {"numbers": [3, 0], "target": 24}, "numbers.1", "equal to 1"),
        ("countdown", {"numbers": [3, 200], "target": 24}, "numbers.1", "equal to 199"),
        ("countdown", {"numbers": [True], "target": 24}, "numbers.0", "integer"),
        ("countdown", {"numbers": [3.0], "target": 24}, "numbers.0", "integer"),
        ("countdown", {"numbers": ["3"], "target": 24}, "numbers.0", "integer"),
        ("countdown", {"numbers": [3], "target": 200}, "target", "equal to 199"),
        ("countdown", {"numbers": [3], "target": -1}, "target", "equal to 0"),
        ("countdown", {"numbers": [3], "target": 3, "hint": 1}, "hint", "unknown"),
        ("exact", {}, "answer", "missing"),
        ("exact", {"answer": 3}, "answer", "string"),
        ("exact", {"answer": " \n"}, "answer", "blank"),
        ("exact", {"answer": "x" * 1001}, "answer", "1000"),
        ("exact", {"answer": "two\nlines"}, "answer", "one line"),
        ("exact", {"answer": "x", "ignore_case": "yes"}, "ignore_case", "boolean"),
        ("exact", {"answer": "x", "pattern": "(a+)+"}, "pattern", "unknown"),
        ("math", {"answer": "x" * 1001}, "answer", "1000"),
        ("math", {"answer": None}, "answer", "string"),
        ("math", [1], "problem", "object"),
        ("none", {"answer": "x"}, "answer", "no fields"),
    ],
)
def test_a_bad_problem_is_refused_by_field_and_limit(name: str, problem: Any, field: str, limit: str) -> None:
    with pytest.raises(BadProblem) as refused:
        registry.task(name, problem)
    assert refused.value.field == field
    assert limit in refused.value.message


def test_an_error_does_not_repeat_megabytes_of_input() -> None:
    with pytest.raises(BadProblem) as unknown_field:
        registry.task("math", {"answer": "1", "x" * 1_000_000: 1})
    with pytest.raises(BadTask) as unknown_task:
        registry.task("x" * 1_000_000, {})
    assert len(str(unknown_field.value)) < 300
    assert len(str(unknown_task.value)) < 300


def test_an_unknown_task_names_the_tasks_that_exist() -> None:
    with pytest.raises(BadTask, match="countdown, exact, math, none"):
        registry.task("sudoku", {})
