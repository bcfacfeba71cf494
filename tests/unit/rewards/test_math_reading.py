"""The structure of an answer, read without an algebra system."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.rewards.errors import BadProblem
from ramify.rewards.math_numbers import Number, Unreadable
from ramify.rewards.math_reading import read
from ramify.rewards.registry import check

NUMERATORS = st.integers(-(10**12), 10**12)


def value(answer: str) -> Fraction:
    reading = read(answer)
    assert isinstance(reading, Number)
    return reading.value


@given(NUMERATORS, st.integers(1, 10**6))
def test_a_fraction_is_one_number_however_it_is_spelled(above: int, below: int) -> None:
    exact = Fraction(above, below)
    sign, size = "-" if above < 0 else "", abs(above)
    whole, rest = divmod(size, below)
    spelled = [
        f"{above}/{below}",
        f"\\frac{{{above}}}{{{below}}}",
        f"{sign}\\dfrac{{{size}}}{{{below}}}",
        f"${above}/{below}$",
    ]
    spelled += [f"{sign}{whole} {rest}/{below}", f"{sign}{whole}\\tfrac{{{rest}}}{{{below}}}"] if rest else []
    assert {value(one) for one in spelled} == {exact}


@given(NUMERATORS)
def test_an_integer_is_one_number_however_it_is_grouped(number: int) -> None:
    for spelled in (
        f"{number}",
        f"{number:,}",
        f"{number:,}".replace(",", "{,}"),
        f"{number:,}".replace(",", "\\,"),
    ):
        assert value(spelled) == number
    assert value(f"{number}".replace("-", "\u2212")) == number


@given(st.integers(1, 9999), st.integers(-300, 300))
def test_a_power_of_ten_is_kept_exactly_at_every_size(digits: int, power: int) -> None:
    exact = digits * Fraction(10) ** power
    for spelled in (
        f"{digits}e{power}",
        f"{digits}\\times 10^{{{power}}}",
        f"{digits} * 10^{power}",
        f"{digits}\u00b710^{{{power}}}",
    ):
        assert value(spelled) == exact


@given(st.text(max_size=60))
def test_whatever_is_read_ends_in_a_reading_or_is_unreadable(answer: str) -> None:
    with suppress(Unreadable):
        read(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "\\boxed{}",
        "{1",
        "(1, 2",
        "1 +",
        "\\frac{1}{",
        "\\frac{}{2}",
        "43 = 42",
        "1/0",
        "4 10/3",
        "101_{77}",
        "()",
        "x =",
        "$$",
        ", ,",
    ],
)
def test_a_reference_that_cannot_be_read_is_refused_by_its_field(answer: str) -> None:
    with pytest.raises(BadProblem, match="cannot be read as mathematics") as refused:
        check("math", {"answer": answer})
    assert refused.value.field == "answer"
