"""Work of the `math` task in a worker process: find an answer, compare answers. Nothing else may import it.

The structure of answers is ours (`math_reading`), and so is the comparison of plain numbers, which is exact. What is
left, formulas, goes to math-verify's grammar and to sympy, which may take for ever: that is why all of it happens in
a process that may be killed, whose environment holds no secrets, which can write no file, and whose texts are
bounded. Neither's own timeouts are used: they turn a late answer into a wrong one.

Formulas are equal if they agree at several points to 40 digits. math-verify's own test of equality rounds to six
decimals, so that every small number equals every other, and falls back on part of an answer that it cannot read
(decided 2026-11-28 after field reports of both).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

import sympy
from latex2sympy2_extended.latex2sympy2 import latex2sympy
from math_verify import verify
from math_verify.grader import should_treat_as_complex

from ramify.rewards.answer_text import final, tidy
from ramify.rewards.math_numbers import Number, Unreadable
from ramify.rewards.math_reading import (
    Assignment,
    Chain,
    Formula,
    Group,
    Reading,
    read,
    reference,
)

PROBE = "\\frac{12345}{6789}"
DIGITS = 60
"""Digits that formulas are computed with."""
AGREEMENT = sympy.Rational(1, 10**40)
"""Largest relative difference of equal formulas; of those with decimals in them, `ROUNDED`."""
NOTHING = sympy.Rational(1, 10**50)
"""Largest size of a formula that is zero."""
ROUNDED = sympy.Rational(1, 10**9)
DECIMAL = Fraction(1, 10**6)
"""Largest relative difference of a decimal and what it is the rounding of."""
POINTS = tuple(
    tuple(sympy.Rational(sign * (37 * k + 11 * i + 5), 7 * k + 13 + i) for k in range(8))
    for i, sign in enumerate((1, -1, 1, -1, 1))
)
"""Values of the variables (up to eight) at which formulas are compared."""


def extract(text: str) -> str | None:
    """Return the final answer of a text, in one spelling; `None` if there is none.

    A formula is computed, for nothing but to fail here and now if it is one over which sympy takes for ever; once
    others are compared with it, they would fail for it.
    """
    answer = final(text)
    if answer is None:
        return None
    _same(_reading(PROBE), _reading(answer), strict=False)
    return tidy(answer) or None


def compare(reference: str, text: str) -> tuple[str | None, bool]:
    """Return a text's answer in one spelling, and whether it equals the reference. Raises `Unreadable`."""
    gold, answer = _gold(reference), final(text)
    if answer is None:
        return None, False
    return tidy(answer) or None, _same(gold, _reading(answer), strict=False)


def match(text: str, others: Sequence[str]) -> int | None:
    """Return the index of the first of `others` whose answer equals the text's, or `None`."""
    answers = [_reading(final(one) or "") for one in (text, *others)]
    return next((i for i, other in enumerate(answers[1:]) if _same(other, answers[0], strict=True)), None)


def _gold(answer: str) -> Reading:
    gold = reference(answer)
    for formula in _formulas(gold):
        if _parsed(formula.latex) is None:
            raise Unreadable(f"the reference answer {answer[:100]!r} cannot be read as mathematics")
    return gold


@lru_cache(maxsize=256)
def _reading(answer: str) -> Reading | None:
    try:
        return read(answer)
    except Unreadable:
        return None


def _formulas(reading: Reading) -> Iterator[Formula]:
    if isinstance(reading, Formula):
        yield reading
    for part in _parts(reading):
        yield from _formulas(part)


def _parts(reading: Reading) -> tuple[Reading, ...]:
    if isinstance(reading, Assignment):
        return (reading.value,)
    return reading.parts if isinstance(reading, Group | Chain) else ()


# -- structure --------------------------------------------------------------------------------------------------------


def _same(gold: Reading | None, answer: Reading | None, strict: bool) -> bool:
    """Tell whether two answers are one. `strict`, for votes, makes the relation transitive: 50 % is one half and
    never 50."""
    if gold is None or answer is None:
        return False
    if isinstance(gold, Assignment) and isinstance(answer, Assignment):
        return gold.name == answer.name and _same(gold.value, answer.value, strict)
    if isinstance(gold, Assignment) or isinstance(answer, Assignment):
        equations = any(isinstance(one, Formula) and one.relation for one in (gold, answer))
        gold, answer = (
            (one.equation if equations else one.value) if isinstance(one, Assignment) else one
            for one in (gold, answer)
        )
        return _same(gold, answer, strict)
    if isinstance(gold, Chain) or isinstance(answer, Chain):
        ends = [_end(one, strict) for one in (gold, answer)]
        return _same(ends[0], ends[1], strict)
    if isinstance(gold, Group) or isinstance(answer, Group):
        return _same_groups(gold, answer, strict)
    if isinstance(gold, Number) and isinstance(answer, Number):
        return _same_numbers(gold, answer, strict)
    if isinstance(gold, str) or isinstance(answer, str):
        return gold == answer
    return _same_formulas(gold, answer)


def _end(reading: Reading, strict: bool) -> Reading | None:
    """Return the last part of a chain whose parts are all equal, and anything else as it is."""
    if not isinstance(reading, Chain):
        return reading
    first, *others = reading.parts
    return reading.parts[-1] if all(_same(first, other, strict) for other in others) else None


def _same_groups(gold: Reading, answer: Reading, strict: bool) -> bool:
    if not isinstance(gold, Group) or not isinstance(answer, Group):
        group, single = (gold, answer) if isinstance(gold, Group) else (answer, gold)
        assert isinstance(group, Group)
        if group.decimal is not None and isinstance(single, Number):
            return _same(group.decimal, single, strict)
        if group.kind == "set" and len(group.parts) == 1:
            return _same(group.parts[0], single, strict)
        sets = isinstance(single, Formula) and (single.relation or "\\mathbb" in single.latex)
        return sets and _same_formulas(gold, answer)
    if len(gold.parts) != len(answer.parts):
        return False
    kinds = {gold.kind, answer.kind}
    if kinds == {"list"} and _assigns(gold) is not _assigns(answer):
        return all(_same(*pair, strict) for pair in zip(gold.parts, answer.parts, strict=True))
    if kinds <= {"list", "set"} or kinds == {"union"}:
        return _same_unordered(gold.parts, answer.parts, strict)
    vectors = len(gold.parts) > 2 and kinds <= {"()", "[]"}
    if len(kinds) > 1 and not vectors and (strict or kinds != {"list", "()"}):
        return False
    return all(_same(*pair, strict) for pair in zip(gold.parts, answer.parts, strict=True))


def _assigns(group: Group) -> bool:
    """Tell whether it gives each of several variables a value (`a = 1, b = 2`): bare values then mean its order."""
    names = {part.name for part in group.parts if isinstance(part, Assignment)}
    return len(names) == len(group.parts)


def _same_unordered(gold: Sequence[Reading], answer: Sequence[Reading], strict: bool) -> bool:
    left = list(answer)
    for one in gold:
        found = next((i for i, other in enumerate(left) if _same(one, other, strict)), None)
        if found is None:
            return False
        del left[found]
    return True


def _same_numbers(gold: Number, answer: Number, strict: bool) -> bool:
    if gold.unit and answer.unit and gold.unit != answer.unit:
        return False
    pairs = [(_worth(gold), _worth(answer))]
    if gold.percent is not answer.percent and not strict and abs(gold.value) >= 1 and abs(answer.value) >= 1:
        pairs.append((gold.value, answer.value))
    return any(_near(a, b, gold.half, answer.half) for a, b in pairs)


def _worth(number: Number) -> Fraction:
    return number.value / 100 if number.percent else number.value


def _near(a: Fraction, b: Fraction, *halves: Fraction | None) -> bool:
    if a == b:
        return True
    coarser = max((half for half in halves if half is not None), default=None)
    return coarser is not None and abs(a - b) <= min(coarser, DECIMAL * abs(a))


# -- formulas ---------------------------------------------------------------------------------------------------------


def _same_formulas(gold: Reading, answer: Reading) -> bool:
    if isinstance(gold, Formula) and gold == answer:
        return True
    units = [one.unit for one in (gold, answer) if isinstance(one, Formula | Number) and one.unit]
    left, right = _expression(gold), _expression(answer)
    if len(set(units)) > 1:
        return False
    if left is None or right is None:
        return False
    if not (_is_scalar(left) and _is_scalar(right)):
        return _same_objects(left, right)
    half = next((one.half for one in (gold, answer) if isinstance(one, Number) and one.half), None)
    return _agree(left, right, half)


def _expression(reading: Reading) -> Any:
    if isinstance(reading, Number):
        value = _worth(reading)
        return sympy.Rational(value.numerator, value.denominator)
    if isinstance(reading, Formula):
        return _parsed(reading.latex)
    if isinstance(reading, Group) and len(reading.parts) == 2 and reading.kind in ("()", "(]", "[)", "[]"):
        ends = [_expression(part) for part in reading.parts]
        if all(end is not None for end in ends):
            return sympy.Interval(*ends, left_open=reading.kind[0] == "(", right_open=reading.kind[1] == ")")
    return None


@lru_cache(maxsize=256)
def _parsed(latex: str) -> Any:
    """Return an expression of sympy's; `None` if math-verify's grammar does not know the formula."""
    try:
        expression = latex2sympy(
            latex,
            is_real=not should_treat_as_complex(latex),
            convert_degrees=False,
            normalization_config=None,
        )
        return None if expression.has(sympy.zoo, sympy.nan) else expression
    except (MemoryError, RecursionError):
        raise
    except Exception:  # the grammar and sympy raise many kinds for what they cannot read
        return None


def _is_scalar(expression: Any) -> bool:
    return isinstance(expression, sympy.Expr) and not isinstance(expression, sympy.MatrixExpr)


def _same_objects(left: Any, right: Any) -> bool:
    """Matrices entry by entry, equations by their sides; inequalities and sets by math-verify."""
    if isinstance(left, sympy.MatrixBase) and isinstance(right, sympy.MatrixBase):
        return left.shape == right.shape and all(_agree(a, b, None) for a, b in zip(left, right, strict=True))
    if isinstance(left, sympy.MatrixBase) or isinstance(right, sympy.MatrixBase):
        return False
    if isinstance(left, sympy.Eq) and isinstance(right, sympy.Eq):
        return _same_equations(left, right)
    try:
        equal = bool(
            verify(left, right, allow_set_relation_comp=True, timeout_seconds=None, raise_on_error=True)
        )
    except (MemoryError, RecursionError):
        raise
    except Exception:  # what sympy cannot compare, such as an inequality with a set of words, is not equal
        return False
    return equal and (
        _names(left) == _names(right) or isinstance(left, sympy.Set) is not isinstance(right, sympy.Set)
    )


def _names(*expressions: Any) -> list[str]:
    return sorted({symbol.name for one in expressions for symbol in one.free_symbols})


def _same_equations(left: Any, right: Any) -> bool:
    """Tell whether one is a multiple of the other."""
    try:
        return bool(left == right) or _agree(_scaled(left), _scaled(right), None)
    except (AttributeError, TypeError):  # a side is no number
        return False


def _scaled(equation: Any) -> Any:
    """Return left less right side, as a multiple of its value at one point."""
    difference = equation.lhs - equation.rhs
    point = dict(zip(_names(difference), POINTS[-1], strict=False))
    scale = difference.subs({symbol: point[symbol.name] for symbol in difference.free_symbols})
    return difference / scale


def _agree(left: Any, right: Any, half: Fraction | None) -> bool:
    """Tell whether two formulas have one value at every point at which both have one."""
    names = _names(left, right)
    if len(names) > len(POINTS[0]):
        return bool(left == right)
    compared = 0
    for point in POINTS if names else POINTS[:1]:
        places = dict(zip(names, point, strict=False))
        a, b = _computed(left, places), _computed(right, places)
        if a is None and b is None:
            continue
        if a is None or b is None or not _close(a, b, half, left.has(sympy.Float) or right.has(sympy.Float)):
            return False
        compared += 1
    return compared >= min(2, len(names) + 1) or bool(left == right)


def _computed(side: Any, point: dict[str, Any]) -> Any:
    """Return the number that a formula is at a point; `None` if it is none."""
    try:
        value = side.subs({symbol: point[symbol.name] for symbol in side.free_symbols}).doit()
        value = value if value.is_Rational else value.evalf(DIGITS)
    except (MemoryError, RecursionError):
        raise
    except Exception:  # sympy raises many kinds for what has no value
        return None
    return None if not value.is_number or value.has(sympy.nan, sympy.zoo) else value


def _close(a: Any, b: Any, half: Fraction | None, rounded: bool) -> bool:
    if a.is_infinite or b.is_infinite or (a.is_Rational and b.is_Rational):
        return bool(a == b)
    if a == 0 or b == 0:
        return bool(abs(a - b) < NOTHING)
    size = max(abs(a), abs(b))
    if half is not None:
        return bool(
            abs(a - b)
            <= min(sympy.Rational(half.numerator, half.denominator), sympy.Rational(1, 10**6) * size)
        )
    return bool(abs(a - b) <= size * (ROUNDED if rounded else AGREEMENT))


compare(
    "\\sqrt{2}", "\\boxed{\\frac{x}{\\sqrt{2}}}"
)  # builds the grammar before the first call's deadline runs
