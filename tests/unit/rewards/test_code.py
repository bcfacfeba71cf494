"""The task `code`: its problems and how outputs are compared. What runs programs is tests/integration/sandbox."""

from __future__ import annotations

from typing import Any

import pytest

from ramify.rewards import code as code_task
from ramify.rewards import grading, registry
from ramify.rewards.code import Case, Code
from ramify.rewards.code_outputs import canonical_text, canonical_value, same_text, same_value, truth
from ramify.rewards.errors import BadProblem
from ramify.sandbox.session import GRACE, STARTING

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
        (
            {"function": "f", "hidden": [{"input": [], "output": {"$truth": "yes"}}]},
            "problem",
            "hidden.0.output: '$truth' must be true or false",
        ),
        *(
            ({"function": "f", "hidden": [{"input": given, "output": output}]}, "problem", f"hidden.0.{said}")
            for given, output, said in (
                ([], {"$tuple": 5}, "output: '$tuple' must be a list"),
                ([], [1, {"a": {"$set": 5}}], "output.1.a: '$set' must be a list"),
                ([], {"$tuple": [{"$dict": [[1]]}]}, "output.$tuple.0: '$dict' must be a list of pairs"),
                (
                    [],
                    {"$bytes": "00FF"},
                    "output: '$bytes' must be bytes as hexadecimal digits in lower case",
                ),
                ([], {"$tuple": [], "b": 1}, "output: '$tuple' must be the only key of its object"),
                ([{"$bytes": "0"}], 1, "input.0: '$bytes' must be"),
                ([{"$set": [[1]]}], 1, "input: unhashable type: 'list'"),
            )
        ),
        ({"public": [{"input": "", "output": " \n"}]}, "problem", "public.0.output must not be blank"),
        ({"hidden": [{"input": [1], "output": 2}]}, "problem", "hidden.0 must have text as input and output"),
        ({"hidden": [TEST], "seconds": 21}, "seconds", "must be less than or equal to 20"),
        ({"hidden": [TEST], "memory": 10_000}, "memory", "must be less than or equal to 768"),
        ({"hidden": [TEST] * 201}, "hidden", "at most 200"),
        (
            {"hidden": [TEST] * 200, "seconds": 20},
            "problem",
            "hidden has 200 tests of 20 s of processor time; together they may have 200 s at most",
        ),
        (
            {"hidden": [TEST], "public": [TEST] * 20, "seconds": 11},
            "problem",
            "public has 20 tests of 11 s",
        ),
        ({"hidden": [{**TEST, "rel_tol": 2}]}, "hidden.0.rel_tol", "less than or equal to 1"),
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


def test_imports_from_the_future_stand_before_a_prelude() -> None:
    code = Code.of({"hidden": [TEST], "prelude": "import math\n"})
    program = '"""Doc."""\nfrom __future__ import (\n    annotations,\n)\nfrom __future__ import division  # x\nx = 1\n'
    source = code.source(f"```python\n{program}```")
    assert source is not None
    compile(source, "answer.py", "exec")
    assert source.index("annotations") < source.index("import math") < source.index("x = 1")


def test_the_longest_grading_fits_its_deadline_and_whoever_waits_has_that_long() -> None:
    """Each test's own limit, three times its processor time and a wait, is cut by what is left for all."""
    assert Code.grade_seconds is not None
    assert Code.grade_seconds >= 3 * code_task.LONGEST + code_task.WAITING + STARTING + GRACE
    assert Code.final_seconds == Code.grade_seconds
    assert grading.shared_pool(Code).limits.patience >= Code.grade_seconds


@pytest.mark.parametrize(
    ("tolerance", "expected", "result", "same"),
    [
        ({"abs_tol": 0.1}, 3, 3.05, True),
        ({"abs_tol": 0.1}, 3, 3.2, False),
        ({"abs_tol": 0.1}, [1.0, [2]], [1.05, [1.95]], True),
        ({"rel_tol": 0.01}, 1000.0, 1009.0, True),
        ({"rel_tol": 0.01}, 0.0, 0.001, False),
        ({"rel_tol": 1e-9, "abs_tol": 0}, 1.0, 1.0 + 1e-7, False),
        ({"abs_tol": 5.0}, True, 3, False),
        ({}, 3, 3.0000001, False),
        ({}, 3.0, 3.0000001, True),
    ],
)
def test_a_test_may_say_how_close_is_close_enough(
    tolerance: dict[str, float], expected: Any, result: Any, same: bool
) -> None:
    case = Case(input=[], output=expected, **tolerance)
    assert same_value(case.output, result, case.tolerance) is same


@pytest.mark.parametrize(
    ("value", "true"),
    [
        (None, False),
        (0, False),
        ("", False),
        ([], False),
        ({}, False),
        ({"$tuple": []}, False),
        ({"$set": []}, False),
        ({"$dict": []}, False),
        ({"$bytes": ""}, False),
        (-1, True),
        ("0", True),
        ([0], True),
        ({"a": 0}, True),
        ({"$tuple": [0]}, True),
    ],
)
def test_a_condition_takes_what_python_takes(value: Any, true: bool) -> None:
    assert truth(value) is true
    assert same_value({"$truth": true}, value)
    assert not same_value({"$truth": not true}, value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (1, True),
        (0.1 + 0.2, 0.3),
        ([1], {"$tuple": [1]}),
        ({"$set": [2, "a", 1]}, {"$set": ["a", 1.0, 2]}),
        ({"a": [1], "b": 2}, {"$dict": [["b", 2], ["a", {"$tuple": [1]}]]}),
        ({"$dict": [[{"$tuple": [1, 2]}, 3]]}, {"$dict": [[{"$tuple": [1.0, 2]}, 3]]}),
    ],
)
def test_equal_values_have_one_spelling(one: Any, other: Any) -> None:
    assert canonical_value(one) == canonical_value(other)
    assert same_value(one, other)


def test_different_values_have_different_spellings() -> None:
    values = [
        None,
        "null",
        0,
        "0",
        1,
        1.5,
        2**70,
        [],
        [1],
        [[1]],
        {},
        {"$set": []},
        {"$bytes": ""},
        "",
        {"a": 1},
    ]
    assert len(set(map(canonical_value, values))) == len(values)


def test_printed_fractions_have_one_spelling() -> None:
    assert canonical_text("x 0.30000000000000004 \n\n") == canonical_text("x  0.3")
    assert canonical_text("1.0") != canonical_text("2.0")
    assert canonical_text("1 2") != canonical_text("1\n2")
    assert canonical_text("no.") == "no."


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
