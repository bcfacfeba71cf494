"""Countdown: reach the target with each number used exactly once, one step a line.

A problem is one to eight numbers, a generated one four to six, and a target; an answer is lines like `8 * 3 = 24`,
the larger operand first, every result an integer from 0 to 199, division exact. This module reads and judges answers:
it parses with one anchored pattern and does its own integer arithmetic, so the model's text is never evaluated. What
generates problems and solves them lives in `ramify.rewards.countdown_data`.

A decision that could have gone otherwise (2026-11-22): two answers count as the same final answer if their
expressions agree up to commutativity and associativity (`a - (b - c)` is `a + c - b`), because equivalent
expressions are right or wrong together; an expression with a miscomputed line keeps that line as an opaque
atom, so that a slip never votes with the calculation that it resembles.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict, cast

from ramify.search.records import Verdict

__all__ = [
    "MAX_NUMBERS",
    "MAX_RESULT",
    "Operation",
    "Problem",
    "apply",
    "check_problem",
    "final_answer",
    "grade",
    "parse_answer",
    "parse_prompt",
    "prompt",
]

MAX_RESULT = 199
"""Largest integer that any step may produce; the smallest is 0."""

MAX_NUMBERS = 8
"""Most numbers of a problem."""
MAX_TEXT = 2_000
"""Characters of a prompt or an answer that is read."""

Operator = Literal["+", "-", "*", "/"]

_NUMBER = r"(0|[1-9][0-9]{0,2})"
_LINE = re.compile(rf"{_NUMBER} ([-+*/]) {_NUMBER} = {_NUMBER}")
_PROMPT = re.compile(rf"({_NUMBER[1:-1]})((?: (?:{_NUMBER[1:-1]}))*) to ({_NUMBER[1:-1]})\n?")


class Problem(TypedDict):
    """One Countdown problem, in the shape in which requests and logs carry it."""

    numbers: list[int]
    """The given numbers, each 1..199, in any order; the prompt names them in ascending order."""
    target: int
    """The integer to reach, 0..199."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One line `a op b = c` of an answer, as written: nothing about it is checked but its form."""

    a: int
    op: Operator
    b: int
    c: int

    def __str__(self) -> str:
        return f"{self.a} {self.op} {self.b} = {self.c}"


def check_problem(problem: Mapping[str, object]) -> Problem:
    """Return `problem` as a `Problem`; raise `ValueError` saying what is wrong with it."""
    unknown = set(problem) - {"numbers", "target"}
    if unknown:
        raise ValueError(f"a countdown problem has 'numbers' and 'target', not {sorted(unknown)}")
    numbers, target = problem.get("numbers"), problem.get("target")
    if not isinstance(numbers, Sequence) or isinstance(numbers, str) or not 1 <= len(numbers) <= MAX_NUMBERS:
        raise ValueError(f"'numbers' must be a list of 1 to {MAX_NUMBERS} integers")
    if any(type(n) is not int or not 1 <= n <= MAX_RESULT for n in numbers):
        raise ValueError(f"every one of 'numbers' must be an integer from 1 to {MAX_RESULT}")
    if type(target) is not int or not 0 <= target <= MAX_RESULT:
        raise ValueError(f"'target' must be an integer from 0 to {MAX_RESULT}")
    return {"numbers": [int(n) for n in numbers], "target": target}


def prompt(problem: Mapping[str, object]) -> str:
    """Return the prompt of a problem, its numbers in ascending order: `"3 5 7 8 to 24\\n"`."""
    checked = check_problem(problem)
    return f"{' '.join(map(str, sorted(checked['numbers'])))} to {checked['target']}\n"


def parse_prompt(text: str) -> Problem | None:
    """Return the problem that a prompt states, with or without its final newline, or None if it is none."""
    match = _PROMPT.fullmatch(text) if len(text) <= MAX_TEXT else None
    if match is None:
        return None
    numbers = [int(n) for n in (match[1] + match[2]).split(" ")]
    try:
        return check_problem({"numbers": numbers, "target": int(match[3])})
    except ValueError:
        return None


def apply(a: int, op: str, b: int) -> int | None:
    """Return `a op b`, or None if the rules forbid it.

    Forbidden are a smaller first operand, a result outside 0..199 and a division that is not exact.
    """
    if a < b:
        return None
    if op == "/":
        return a // b if b and a % b == 0 else None
    result = a + b if op == "+" else a - b if op == "-" else a * b
    return result if result <= MAX_RESULT else None


def parse_answer(text: str) -> list[Operation] | None:
    """Return the steps of an answer (text around it stripped of blanks), or None if a line has another form."""
    if len(text) > MAX_TEXT:
        return None
    steps = []
    for line in text.strip(" \n").split("\n"):
        match = _LINE.fullmatch(line)
        if match is None:
            return None
        steps.append(Operation(int(match[1]), cast(Operator, match[2]), int(match[3]), int(match[4])))
    return steps


def grade(problem: Mapping[str, object], text: str) -> Verdict:
    """Judge an answer to a problem; `text` is the answer alone, without the prompt.

    Raises `ValueError` for a malformed problem, never for any text.
    """
    checked = check_problem(problem)
    if not text.strip():
        return Verdict(0.0, "the answer is empty")
    steps = parse_answer(text)
    if steps is None:
        return Verdict(0.0, "a line is not of the form `a op b = c`")
    left = Counter(checked["numbers"])
    for i, step in enumerate(steps, start=1):
        fault = _fault(step, left)
        if fault:
            return Verdict(0.0, f"line {i}, `{step}`: {fault}")
        left -= Counter((step.a, step.b))
        left[step.c] += 1
    if left.total() != 1:
        return Verdict(0.0, f"{left.total()} numbers are left, not 1: {sorted(left.elements())}")
    if steps[-1].c != checked["target"]:
        return Verdict(0.0, f"the result is {steps[-1].c}, not {checked['target']}")
    return Verdict(1.0, "correct")


def _fault(step: Operation, left: Counter[int]) -> str | None:
    """Return what is wrong with a step when `left` are the numbers still available, or None."""
    missing = Counter((step.a, step.b)) - left
    if missing:
        return f"{min(missing)} is not available"
    result = apply(step.a, step.op, step.b)
    if result is None:
        return "not allowed (larger operand first, exact division, results 0 to 199)"
    if result != step.c:
        return f"the result is {result}"
    return None


@dataclass(frozen=True, slots=True)
class _Term:
    """An expression as signed terms of one kind: a sum (+, -), a product (*, /), or an atom."""

    kind: Literal["sum", "product", "atom"]
    plus: tuple[str, ...]
    minus: tuple[str, ...] = ()

    def render(self) -> str:
        """Return the canonical text, parts sorted, numbers before parentheses and larger first."""
        if self.kind == "atom":
            return self.plus[0]
        join, inverse = (" + ", " - ") if self.kind == "sum" else (" * ", " / ")
        return "".join([join.join(_ordered(self.plus)), *(inverse + part for part in _ordered(self.minus))])

    def parts(self, kind: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the terms (plain, inverted) that this expression contributes to one of `kind`."""
        if self.kind == kind:
            return self.plus, self.minus
        return ((self.render() if self.kind == "atom" else f"({self.render()})"),), ()


def _ordered(parts: tuple[str, ...]) -> list[str]:
    return sorted(parts, key=lambda part: (not part.isdigit(), -int(part) if part.isdigit() else 0, part))


def _combine(step: Operation, a: _Term, b: _Term) -> _Term:
    kind: Literal["sum", "product"] = "sum" if step.op in "+-" else "product"
    (plus, minus), (other_plus, other_minus) = a.parts(kind), b.parts(kind)
    if step.op in "-/":
        other_plus, other_minus = other_minus, other_plus
    return _Term(kind, plus + other_plus, minus + other_minus)


def final_answer(text: str) -> str | None:
    """Return the canonical expression of an answer, by which answers vote, or None if it is no complete one.

    Complete means that every line has the form `a op b = c` and every result but the last is used. Whether the
    answer is right is not looked at. An operand that an earlier line produced is taken to be that result.
    `"5 + 3 = 8\\n8 * 2 = 16"` gives `"2 * (5 + 3)"`; terms are flattened and sorted, so equal for all orders.
    """
    steps = parse_answer(text)
    if steps is None:
        return None
    results: list[tuple[int, _Term]] = []

    def operand(value: int) -> _Term:
        for i, (result, term) in enumerate(results):
            if result == value:
                del results[i]
                return term
        return _Term("atom", (str(value),))

    for step in steps:
        term = _combine(step, operand(step.a), operand(step.b))
        if apply(step.a, step.op, step.b) != step.c:
            term = _Term("atom", (f"[{term.render()} = {step.c}]",))
        results.append((step.c, term))
    return results[0][1].render() if len(results) == 1 else None
