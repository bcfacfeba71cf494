"""Data sets of programming problems: the shapes of HumanEval, MBPP and LiveCodeBench."""

from __future__ import annotations

import ast
import base64
import json
import math
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest

from ramify.rewards import datasets
from ramify.rewards.code_assertions import calls
from ramify.rewards.errors import BadDataset
from ramify.rewards.verifier import Example

HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'from typing import List\n\n\ndef add(a: int, b: int) -> int:\n    """Add."""\n',
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "test": """
METADATA = {}


def check(candidate):
    assert candidate(1, 2) == 3, "sums"
    assert candidate(-1, 1) == 0
    assert abs(candidate(0.5, 0.25) - 0.75) < 1e-6
    assert candidate([1], (2, {3})) == {"a": None}
    assert 1, "some of HumanEval hold such a line"
""",
}
MBPP = {
    "task_id": 2,
    "text": "Write a function to find the shared elements.",
    "test_list": [
        "assert shared((3, 4), (4, 5)) == (4,)",
        "assert shared((1,), (2,)) == ()",
    ],
    "test_setup_code": "import re",
}


def livecodebench(**changes: Any) -> dict[str, Any]:
    tests = [{"input": "1 2", "output": "3", "testtype": "stdin"}]
    packed = base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()
    return {
        "question_id": "abc",
        "question_content": "Add two numbers.",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": json.dumps(tests),
        "private_test_cases": packed,
        "metadata": "{}",
        **changes,
    }


def load(tmp_path: Path, split: str, *rows: object) -> list[Example]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return datasets.load(f"code:{split}?file={path}")


def test_assertions_become_calls_with_literals(tmp_path: Path) -> None:
    (example,) = load(tmp_path, "humaneval", HUMANEVAL)
    assert example.problem["function"] == "add"
    assert example.problem["prelude"] == HUMANEVAL["prompt"]
    assert example.problem["hidden"] == [
        {"input": [1, 2], "output": 3},
        {"input": [-1, 1], "output": 0},
        {"input": [0.5, 0.25], "output": 0.75, "abs_tol": math.nextafter(1e-6, 0)},
        {"input": [[1], {"$tuple": [2, {"$set": [3]}]}], "output": {"$dict": [["a", None]]}},
    ]


@pytest.mark.parametrize(
    ("assertion", "test"),
    [
        ("abs(f(1) - 0.5) <= 1e-3", {"output": 0.5, "abs_tol": 1e-3}),
        ("abs(2.0 / 4 - f(1)) <= 0.25", {"output": 0.5, "abs_tol": 0.25}),
        ("math.isclose(f(1), 0.5, rel_tol=0.01)", {"output": 0.5, "rel_tol": 0.01, "abs_tol": 0.0}),
        ("math.isclose(f(1), 0.5)", {"output": 0.5, "rel_tol": 1e-9, "abs_tol": 0.0}),
        ("not f(1)", {"output": {"$truth": False}}),
        ("f(1)", {"output": {"$truth": True}}),
        ("f(1) is None", {"output": None}),
        ("-3 * 19 + 2 ** 10 == f(1)", {"output": 967}),
        ("f(1) == 'ab' * 2 + 'c'", {"output": "ababc"}),
    ],
)
def test_an_assertion_says_what_must_come_out(assertion: str, test: dict[str, Any]) -> None:
    assert calls(ast.parse(f"assert {assertion}").body, "f") == [{"input": [1], **test}]


@pytest.mark.parametrize(
    "statement",
    [
        "for i in range(9): assert f(i) == i",
        "assert f is not None",
        "assert f(1) != 2",
        "assert f(x=1) == 2",
        "assert g(1) == 2",
        "assert f(1) == g(1)",
        "assert set(f(1)) == {1}",
        "assert round(f(1), 2) == 0.33",
        "assert f(1) is 3",
        "assert abs(f(1) - 2) > 1",
        "assert abs(f(1) - 2) < limit",
        "assert numpy.isclose(f(1), 2)",
        "assert f(1) == 2 ** 1000",
        "assert f(1) == 10 ** 60 * 10 ** 60",
        "assert f(1) == 'x' * 10 ** 9",
        "assert f(1) == 1 / 0",
        "assert f(1) == '%99999999d' % 1",
        "x = f(1)",
    ],
)
def test_a_problem_with_a_test_of_another_kind_is_left_out_by_name(
    statement: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    row = {"task_id": 7, "text": "Write f.", "test_list": ["assert f(1) == 2", statement]}
    problems = load(tmp_path, "mbpp", row, MBPP)
    assert [one.id for one in problems] == ["mbpp/2"]
    assert "problem 7 (line 1) is left out" in caplog.text
    assert statement.splitlines()[0][:20] in caplog.text


def test_mbpps_first_test_is_shown_and_the_others_decide(tmp_path: Path) -> None:
    (example,) = load(tmp_path, "mbpp", MBPP)
    assert example.problem["public"] == [
        {"input": [{"$tuple": [3, 4]}, {"$tuple": [4, 5]}], "output": {"$tuple": [4]}}
    ]
    assert [test["output"] for test in example.problem["hidden"]] == [{"$tuple": []}]
    assert "assert shared((3, 4), (4, 5)) == (4,)" in example.messages[0].content
    assert "(1,)" not in example.messages[0].content


def test_packed_tests_are_read_without_being_unpickled(tmp_path: Path) -> None:
    (example,) = load(tmp_path, "livecodebench", livecodebench())
    assert example.problem["hidden"] == [{"input": "1 2", "output": "3"}]
    assert example.group == "easy"


def test_a_pickle_that_would_run_something_is_refused(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "run",))

    packed = base64.b64encode(zlib.compress(pickle.dumps(Trap()))).decode()
    with pytest.raises(BadDataset, match="not one pickled text"):
        load(tmp_path, "livecodebench", livecodebench(private_test_cases=packed))
    assert not (tmp_path / "run").exists()


def test_a_method_is_called_with_one_argument_a_line(tmp_path: Path) -> None:
    tests = json.dumps([{"input": "[1,2]\n3", "output": "[3]", "testtype": "functional"}])
    (example,) = load(
        tmp_path,
        "livecodebench",
        livecodebench(
            public_test_cases=tests,
            private_test_cases=tests,
            starter_code="class Solution:\n    def f(self, a, b):\n        ",
            metadata='{"func_name": "f"}',
        ),
    )
    assert example.problem["function"] == "Solution.f"
    assert example.problem["hidden"] == [{"input": [[1, 2], 3], "output": [3]}]


def test_a_row_of_another_shape_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match="line 2 is no row of mbpp: has no field 'test_list'"):
        load(tmp_path, "mbpp", MBPP, {"task_id": 3})


@pytest.mark.parametrize("spec", ["code:mbpp", "code:mbpp?path=x", "code:mbpp?file=/no/such/file"])
def test_a_file_must_be_named(spec: str) -> None:
    with pytest.raises(BadDataset, match="file"):
        datasets.load(spec)
