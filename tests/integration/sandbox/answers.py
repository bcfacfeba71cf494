"""Answers to small problems, run or graded in a sandbox."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ramify.rewards.code import Case, Code
from ramify.search.protocols import GradingFailed

PROBLEM: dict[str, Any] = {
    "hidden": [{"input": "6 7\n", "output": "42\n"}, {"input": "SECRET-IN 3\n", "output": "SECRET-OUT\n"}],
    "seconds": 1,
}


def ended(program: str, *, seconds: int = 1, stdin: str = "6 7\n", memory: int = 256) -> dict[str, Any]:
    """Run a program in a sandbox and return how it ended."""
    case = Case(input=stdin, output="42")
    code = Code(hidden=(case,), seconds=seconds, memory=memory)
    (one,) = code.run(textwrap.dedent(program), (case,))
    return asdict(one)


def ended_twice(program: str) -> list[dict[str, Any]]:
    """Run a program on two tests of one answer."""
    case = Case(input="1", output="1")
    return [asdict(one) for one in Code(hidden=(case, case)).run(textwrap.dedent(program), (case, case))]


def graded(text: str, problem: Mapping[str, Any] = PROBLEM) -> list[Any]:
    """Outcome and reason; an outcome of None: not graded."""
    try:
        verdict = Code.of(problem).grade(textwrap.dedent(text))
    except GradingFailed as failure:
        return [None, str(failure)]
    return [verdict.outcome, verdict.reason]
