"""Feedback on programs: the public tests that fail, and of the hidden ones nothing but that some do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ramify.rewards import grading, registry
from ramify.rewards.code import Code
from ramify.search.protocols import GradingFailed

SUM: dict[str, Any] = {
    "public": [{"input": "6 7\n", "output": "13\n"}, {"input": "1 1\n", "output": "2\n"}],
    "hidden": [{"input": "8191 1\n", "output": "8192\n"}],
    "seconds": 5,
}
RIGHT = "a, b = map(int, input().split())\nprint(a + b)"
ALMOST = "a, b = map(int, input().split())\nprint(a + b if a < 100 else 0)"
PRODUCT = "a, b = map(int, input().split())\nprint(a * b)"


def told(text: str, outcome: float | None, **changes: Any) -> str:
    return Code.of({**SUM, **changes}).feedback(text, outcome)


def test_a_failed_public_test_is_told_with_what_should_have_come_out() -> None:
    said = told(PRODUCT, None)
    assert said == (
        "Public test 1 of 2 fails.\nInput:\n6 7\nExpected output:\n13\nGot:\n42\n\n"
        "Public test 2 of 2 fails.\nInput:\n1 1\nExpected output:\n2\nGot:\n1"
    )
    assert said == told(PRODUCT, 0.0)


def test_an_error_is_told_as_it_was() -> None:
    assert "Got:\nit failed: ZeroDivisionError" in told("print(1 // 0)", None)
    assert told("```python\n\n```", None) == "The answer holds no code."


def test_of_hidden_tests_the_verdict_alone_is_told_and_only_if_the_search_has_it() -> None:
    assert told(ALMOST, None) == told(RIGHT, None) == "All 2 public tests pass."
    assert told(ALMOST, 0.0) == "All 2 public tests pass, but tests that are not shown fail."
    assert not any(secret in told(text, 0.0) for text in (ALMOST, PRODUCT) for secret in ("8191", "8192"))


def test_without_public_tests_only_a_verdict_says_anything() -> None:
    assert Code.of({**SUM, "public": []}).feedback_needs_outcome
    assert not Code.of(SUM).feedback_needs_outcome
    assert told(ALMOST, 0.0, public=[]) == "The program runs, but tests that are not shown fail."
    with pytest.raises(GradingFailed, match="without a verdict"):
        told(ALMOST, None, public=[])


def test_a_function_is_told_by_its_calls() -> None:
    tests = {"function": "add", "public": [{"input": ["a", 1], "output": "a1"}], "hidden": []}
    said = told("def add(x, y):\n    return x", None, **tests)
    assert said == 'Public test 1 of 1 fails.\nCall: add("a", 1)\nExpected: "a1"\nGot: "a"'


def test_long_parts_are_cut() -> None:
    said = told("print('x' * 5000)", None)
    assert "x" * 500 + "…" in said
    assert len(said) < 2000


def test_a_worker_tells_it_as_well() -> None:
    async def asked() -> str:
        try:
            return await registry.task("code", SUM).feedback(PRODUCT, None)
        finally:
            await grading.close_pools()

    assert asyncio.run(asked()) == told(PRODUCT, None)
