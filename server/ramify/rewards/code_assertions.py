"""Assertions of other people's tests, read as calls of a function and what must come out of them.

| assertion | becomes |
|---|---|
| `assert f(1, [2]) == 3`, `3 == f(…)`, `f(…) is None` | the call, and the value |
| `assert abs(f(1) - 0.5) < 1e-3` | the value, with `abs_tol` |
| `assert math.isclose(f(1), 0.5, rel_tol=0.01)` | the value, with `rel_tol` and `abs_tol` |
| `assert f(1)`, `assert not f(1)` | `{"$truth": true}`, `{"$truth": false}` |

Arguments and values are literals, and arithmetic with them.
"""

from __future__ import annotations

import ast
import builtins
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

MAX_EXPONENT, MAX_LENGTH, MAX_NUMBER = 64, 100_000, 10**100
"""Bounds of arithmetic with literals."""
MAX_QUOTED = 100
"""Characters of a test that an error repeats."""
OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}

Test = dict[str, Any]
"""One test as `code.Case` has it."""


class UnreadableTest(ValueError):
    """A test is of a kind that cannot be run in the sandbox; the message says which."""


def calls(body: Iterable[ast.stmt], function: str) -> list[Test]:
    """Return the tests of some statements. Raises `UnreadableTest` if one is no assertion about calls of `function`."""
    tests = []
    for statement in body:
        if _does_nothing(statement):
            continue
        try:
            if not isinstance(statement, ast.Assert):
                raise ValueError("no assertion")
            tests.append(_test(statement.test, function))
        except ValueError as why:
            quoted = " ".join(ast.unparse(statement).split())[:MAX_QUOTED]
            raise UnreadableTest(f"{why}: {quoted}") from None
    return tests


def function_of(body: Iterable[ast.stmt]) -> str:
    """Return the first function that is called in an assertion and is none of Python's own; empty if there is none."""
    for statement in body:
        for node in ast.walk(statement):
            name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            if name and not hasattr(builtins, name):
                return name
    return ""


def _does_nothing(statement: ast.stmt) -> bool:
    match statement:
        case ast.Pass() | ast.Expr(value=ast.Constant() | ast.Name()):
            return True
        case ast.Assert(test=ast.Constant(value=value)):
            return bool(value)
    return False


def _test(claim: ast.expr, function: str) -> Test:
    """Return the test that an assertion states. Raises `ValueError` if it is of another form."""

    def called(node: ast.expr) -> bool:
        return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function

    def test(one: ast.expr, other: ast.expr, **tolerance: float) -> Test:
        call, value = (one, other) if called(one) else (other, one)
        if not (called(call) and isinstance(call, ast.Call)) or call.keywords:
            raise ValueError(f"no call of {function or 'one function'} with a literal beside it")
        return {"input": [literal(part) for part in call.args], "output": literal(value), **tolerance}

    match claim:
        case ast.Compare(
            left=ast.Call(func=ast.Name(id="abs"), args=[ast.BinOp(left=one, op=ast.Sub(), right=other)]),
            ops=[ast.Lt() | ast.LtE() as below],
            comparators=[bound],
        ):
            limit = _number(bound)
            return test(one, other, abs_tol=limit if isinstance(below, ast.LtE) else math.nextafter(limit, 0))
        case ast.Call(func=ast.Attribute(value=ast.Name(id="math"), attr="isclose"), args=[one, other]):
            return test(one, other, **_closeness(claim.keywords))
        case ast.Compare(left=one, ops=[ast.Eq()], comparators=[other]):
            return test(one, other)
        case ast.Compare(left=one, ops=[ast.Is()], comparators=[ast.Constant(value=None | bool()) as other]):
            return test(one, other)
        case ast.UnaryOp(op=ast.Not(), operand=operand) if called(operand):
            return {**test(operand, ast.Constant(None)), "output": {"$truth": False}}
        case ast.Call() if called(claim):
            return {**test(claim, ast.Constant(None)), "output": {"$truth": True}}
    raise ValueError("an assertion of another form")


def _closeness(keywords: Iterable[ast.keyword]) -> dict[str, float]:
    given = {str(keyword.arg): _number(keyword.value) for keyword in keywords}
    if not given.keys() <= {"rel_tol", "abs_tol"}:
        raise ValueError("isclose with another argument")
    return {"rel_tol": 1e-9, "abs_tol": 0.0} | given


def _number(node: ast.expr) -> float:
    value = literal(node)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise ValueError("a bound that is no positive number")
    return float(value)


# -- literals ---------------------------------------------------------------------------------------------------------


def literal(node: ast.expr) -> Any:
    """Return a literal as `sandbox.driver.encode` has it. Raises `ValueError` if it is none."""
    match node:
        case ast.Constant(value=None | bool() | int() | float() | str() as value):
            return value
        case ast.Constant(value=bytes() as value):
            return {"$bytes": value.hex()}
        case ast.List(elts=inner):
            return [literal(one) for one in inner]
        case ast.Tuple(elts=inner):
            return {"$tuple": [literal(one) for one in inner]}
        case (
            ast.Set(elts=inner) | ast.Call(func=ast.Name(id="set"), args=[ast.List(elts=inner)], keywords=[])
        ):
            return {"$set": [literal(one) for one in inner]}
        case ast.Call(func=ast.Name(id="set"), args=[], keywords=[]):
            return {"$set": []}
        case ast.Dict(keys=keys, values=values) if None not in keys:
            pairs = zip(keys, values, strict=True)
            return {"$dict": [[literal(key), literal(one)] for key, one in pairs if key]}
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_operand(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return _computed(op, _operand(left), _operand(right))
    raise ValueError("no literal")


def _operand(node: ast.expr) -> Any:
    value = literal(node)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("arithmetic with something else than numbers and text")
    return value


def _computed(op: ast.operator, left: Any, right: Any) -> Any:
    if isinstance(op, ast.Mod) and isinstance(left, str):
        raise ValueError("formatted text")
    if isinstance(op, ast.Pow) and not abs(right) <= MAX_EXPONENT:
        raise ValueError("an exponent that is too large")
    if isinstance(op, ast.Mult) and any(isinstance(one, str) for one in (left, right)):
        count = right if isinstance(left, str) else left
        if len(left if isinstance(left, str) else right) * count > MAX_LENGTH:
            raise ValueError("a text that is too long")
    try:
        value = OPERATORS[type(op)](left, right)
    except (ArithmeticError, TypeError) as error:
        raise ValueError(str(error)) from None
    if isinstance(value, int) and abs(value) > MAX_NUMBER:
        raise ValueError("a number that is too large")
    return value
