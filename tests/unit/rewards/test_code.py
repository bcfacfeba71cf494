"""The task `code`: its problems and how outputs are compared. What runs programs is tests/integration/sandbox."""

from __future__ import annotations

from typing import Any

import pytest

from ramify.rewards import registry
from ramify.rewards.code import Code, same_text, same_value
from ramify.rewards.errors import BadProblem

TEST = {"input": "1\n", "output": "1\n"}


@pytest.mark.parametrize(
    ("problem", "field", "message"),
    [
        ({}, "problem", "has neither 'public' nor 'hidden' tests"),
        ({"hidden": [TEST], "language": "cobol"}, "language", "unknown language 'cobol'; there are python"),
        (
            {"hidden": [TEST], "function": "f()"},
            "function",
            "must be the name of a function, or Class.method",
        ),
        (
            {"function": "f", "hidden": [{"input": [], "output": float("inf")}]},
            "problem",
            "hidden.0 holds a number that is not finite",
        ),
        (
            {"hidden": [TEST], "function": "f"},
            "problem",
            "hidden.0.input must be the list of the arguments of 'f'",
        ),
        ({"public": [{"input": "", "output": " \n"}]}, "problem", "public.0.output must not be blank"),
        ({"hidden": [{"input": [1], "output": 2}]}, "problem", "hidden.0 must have text as input and output"),
        ({"hidden": [TEST], "seconds": 21}, "seconds", "must be less than or equal to 20"),
        ({"hidden": [TEST], "memory": 10_000}, "memory", "must be less than or equal to 768"),
        ({"hidden": [TEST] * 201}, "hidden", "at most 200"),
    ],
)
def test_a_wrong_problem_is_named_by_field_and_limit(
    problem: dict[str, Any], field: str, message: str
) -> None:
    with pytest.raises(BadProblem) as error:
        registry.check("code", problem)
    assert error.value.field == field
    assert message in error.value.message


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("print(1)", "print(1)"),
        ("Some words.\n```python\nprint(1)\n```\nMore.", "print(1)\n"),
        ("```\na\n```\nand better\n```py\nb\n```", "b\n"),
        ("<think>```python\na\n```</think>\n```python\nb\n```", "b\n"),
        ("  \n", None),
        ("```python\n\n```", None),
    ],
)
def test_the_program_is_the_last_block_or_the_whole_text(text: str, source: str | None) -> None:
    assert Code.of({"hidden": [TEST]}).source(text) == source


def test_a_prelude_stands_before_the_answer() -> None:
    code = Code.of({"hidden": [TEST], "prelude": "def f(x):\n"})
    assert code.source("    return x") == "def f(x):\n    return x"
    assert code.source("```python\ndef f(x): return x\n```") == "def f(x):\n\ndef f(x): return x\n"


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("42\n", " 42", True),
        ("1 2\n3\n", "1  2  \n3\n\n", True),
        ("1\n2", "1 2", False),
        ("0.5", "0.50000001", True),
        ("0.5", "0.51", False),
        ("7", "007", False),
        ("7", "7.0", False),
        ("yes", "YES", False),
        ("1.0", "nan", False),
        ("1.5", "x", False),
    ],
)
def test_printed_text_is_compared_line_by_line(expected: str, printed: str, same: bool) -> None:
    assert same_text(expected, printed) is same


@pytest.mark.parametrize(
    ("expected", "result", "same"),
    [
        (3, 3, True),
        (3, 3.0, True),
        (0.1, 0.1 + 1e-9, True),
        (3, "3", False),
        ([1, 2], {"$tuple": [1, 2]}, True),
        ([1, 2], [2, 1], False),
        ([1], {"$set": [1]}, False),
        ({"$set": [1, 2]}, {"$set": [2, 1]}, True),
        ({"$dict": [["a", 0.5]]}, {"a": 0.5 + 1e-9}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        (None, None, True),
        (None, False, False),
        (10**400, 0.5, False),
        ({"$bytes": "00"}, {"$bytes": "01"}, False),
    ],
)
def test_results_are_compared_as_data(expected: Any, result: Any, same: bool) -> None:
    assert same_value(expected, result) is same
