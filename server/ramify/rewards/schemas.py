"""The shape of each task's problem: what a caller may send, with every size bounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ramify.rewards import math_reading
from ramify.rewards.answer_text import bare
from ramify.rewards.errors import BadProblem
from ramify.rewards.math_numbers import Unreadable

MAX_NUMBERS = 8
MAX_NUMBER = 199
MAX_TARGET = 199
MAX_REFERENCE = 1_000
"""Characters of a reference answer."""


@dataclass(frozen=True, slots=True)
class CountdownProblem:
    """Reach `target` with each of `numbers` used once."""

    numbers: tuple[int, ...]
    """1 to 8 integers from 1 to 199, in the prompt's order."""
    target: int
    """From 0 to 199."""


@dataclass(frozen=True, slots=True)
class ExactProblem:
    """The one right answer, compared as text."""

    answer: str
    """One line of at most 1,000 characters, not blank."""
    ignore_case: bool = False


@dataclass(frozen=True, slots=True)
class MathProblem:
    """The one right answer, compared as mathematics."""

    answer: str
    """LaTeX or a plain expression of at most 1,000 characters that has one reading."""


def countdown_problem(problem: Mapping[str, object]) -> CountdownProblem:
    """Check a Countdown problem; raises `BadProblem`."""
    _only(problem, "numbers", "target")
    numbers = _required(problem, "numbers")
    if not isinstance(numbers, list | tuple) or not 1 <= len(numbers) <= MAX_NUMBERS:
        raise BadProblem("numbers", f"must be a list of 1 to {MAX_NUMBERS} integers")
    checked = tuple(_integer(f"numbers.{i}", n, 1, MAX_NUMBER) for i, n in enumerate(numbers))
    return CountdownProblem(checked, _integer("target", _required(problem, "target"), 0, MAX_TARGET))


def exact_problem(problem: Mapping[str, object]) -> ExactProblem:
    """Check an `exact` problem; raises `BadProblem`."""
    _only(problem, "answer", "ignore_case")
    answer = _reference(problem)
    if len(answer.strip().splitlines()) > 1:
        raise BadProblem("answer", "must be one line: only one line of an answer is compared with it")
    if not bare(answer):
        raise BadProblem("answer", "holds nothing but punctuation")
    ignore_case = problem.get("ignore_case", False)
    if not isinstance(ignore_case, bool):
        raise BadProblem("ignore_case", "must be true or false")
    return ExactProblem(answer, ignore_case)


def math_problem(problem: Mapping[str, object]) -> MathProblem:
    """Check a `math` problem; raises `BadProblem`."""
    _only(problem, "answer")
    answer = _reference(problem)
    try:
        math_reading.reference(answer)
    except Unreadable as error:
        raise BadProblem("answer", f"cannot be read as mathematics: {error}") from error
    return MathProblem(answer)


def no_problem(problem: Mapping[str, object]) -> None:
    """Check the problem of the task `none`, which is empty; raises `BadProblem`."""
    if problem:
        raise BadProblem("problem", "must be empty for the task 'none'")


def _reference(problem: Mapping[str, object]) -> str:
    answer = _required(problem, "answer")
    if not isinstance(answer, str) or not answer.strip():
        raise BadProblem("answer", "must be a string that is not blank")
    if len(answer) > MAX_REFERENCE:
        raise BadProblem("answer", f"has {len(answer)} characters; at most {MAX_REFERENCE} are allowed")
    return answer


def _only(problem: Mapping[str, object], *fields: str) -> None:
    if not isinstance(problem, Mapping):
        raise BadProblem("problem", f"must be an object with {_listed(fields)}")
    for field in problem:
        if field not in fields:
            raise BadProblem(str(field)[:50], f"is unknown; this task's problem has {_listed(fields)}")


def _required(problem: Mapping[str, object], field: str) -> object:
    if field not in problem:
        raise BadProblem(field, "is missing")
    return problem[field]


def _integer(field: str, value: object, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise BadProblem(field, f"must be an integer from {low} to {high}")
    return value


def _listed(fields: tuple[str, ...]) -> str:
    return ", ".join(f"'{field}'" for field in fields)
