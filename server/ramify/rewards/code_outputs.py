"""When what a program did is what it should do, and one spelling for all that is the same.

Results of functions are values as `sandbox.driver.encode` gives them, compared as Python does, but lists equal tuples,
and numbers with a fraction may differ by a tolerance. Text is compared line by line.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

TRUTH = "$truth"
"""The key of an expected value that any value meets which is true, or false, in a condition."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """By how much numbers may differ: as in `math.isclose`, one of the two is enough."""

    relative: float
    absolute: float
    integers: bool
    """If the expected number is an integer, too."""

    def same(self, expected: float, result: float) -> bool:
        """Tell whether two numbers are close enough."""
        if isinstance(expected, bool) or (isinstance(expected, int) and not self.integers):
            return expected == result
        try:
            return math.isclose(expected, result, rel_tol=self.relative, abs_tol=self.absolute)
        except OverflowError:  # an integer that no float can hold
            return expected == result


USUAL = Tolerance(1e-6, 1e-6, integers=False)


def same_text(expected: str, printed: str, tolerance: Tolerance = USUAL) -> bool:
    """Compare line by line, blanks at the ends aside; numbers that are expected with a fraction up to a tolerance."""
    these, those = lines_of(expected), lines_of(printed)
    return len(these) == len(those) and all(
        _same_line(this, that, tolerance) for this, that in zip(these, those, strict=True)
    )


def lines_of(text: str) -> list[str]:
    """Return the lines of a text without blanks at their ends and blank lines around them."""
    return [line.strip() for line in text.strip().splitlines()]


def _same_line(expected: str, printed: str, tolerance: Tolerance) -> bool:
    these, those = expected.split(), printed.split()
    return len(these) == len(those) and all(
        _same_word(this, that, tolerance) for this, that in zip(these, those, strict=True)
    )


def _same_word(expected: str, printed: str, tolerance: Tolerance) -> bool:
    if expected == printed:
        return True
    try:
        return "." in expected and tolerance.same(float(expected), float(printed))
    except ValueError:
        return False


def same_value(expected: Any, result: Any, tolerance: Tolerance = USUAL) -> bool:
    """Compare two values. Raises `TypeError`, `ValueError` or `RecursionError` if one is of no known form."""
    if isinstance(expected, int | float) and isinstance(result, int | float):
        return tolerance.same(expected, result)
    these, those = _sequence(expected), _sequence(result)
    if these is not None and those is not None:
        return len(these) == len(those) and all(
            same_value(this, that, tolerance) for this, that in zip(these, those, strict=True)
        )
    if isinstance(expected, Mapping) and expected.keys() == {TRUTH}:
        return truth(result) is expected[TRUTH]
    if not (isinstance(expected, Mapping) and isinstance(result, Mapping)):
        return bool(expected == result)
    if "$set" in expected or "$set" in result:
        return canonical_value(expected) == canonical_value(result)
    entries, others = _entries(expected), _entries(result)
    return entries.keys() == others.keys() and all(
        same_value(entries[key], others[key], tolerance) for key in entries
    )


def check_form(value: Any, place: str) -> None:
    """Raise `ValueError` naming the place in a value, input or expected, at which it is of no known form."""
    if isinstance(value, list):
        for i, one in enumerate(value):
            check_form(one, f"{place}.{i}")
    if not isinstance(value, Mapping):
        return
    form = next((form for form in FORMS if form in value), None)
    if form is None:
        for key, one in value.items():
            check_form(one, f"{place}.{key}")
        return
    inner = value[form]
    if len(value) > 1:
        raise ValueError(f"{place}: {form!r} must be the only key of its object")
    if not FORMS[form][0](inner):
        raise ValueError(f"{place}: {form!r} must be {FORMS[form][1]}")
    check_form(inner, f"{place}.{form}")


def _is_hex(value: Any) -> bool:
    return isinstance(value, str) and len(value) % 2 == 0 and not re.search(r"[^0-9a-f]", value)


def _are_pairs(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, list) and len(one) == 2 for one in value)


FORMS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "$tuple": (lambda inner: isinstance(inner, list), "a list"),
    "$set": (lambda inner: isinstance(inner, list), "a list"),
    "$dict": (_are_pairs, "a list of pairs, each a list of key and value"),
    "$bytes": (_is_hex, "bytes as hexadecimal digits in lower case"),
    TRUTH: (lambda inner: isinstance(inner, bool), "true or false"),
}
"""By the key of an object that stands for a value which JSON does not have: a test of what it holds, and the words
for it."""


def truth(value: Any) -> bool:
    """Tell whether a value is true in a condition of Python."""
    if isinstance(value, Mapping) and len(value) == 1:
        ((key, inner),) = value.items()
        return bool(inner) if key.startswith("$") else True
    return bool(value)


def _sequence(value: Any) -> list[Any] | None:
    inner = value.get("$tuple") if isinstance(value, Mapping) else value
    return inner if isinstance(inner, list) else None


def _entries(value: Mapping[str, Any]) -> dict[str, Any]:
    pairs = value["$dict"] if "$dict" in value else value.items()
    return {canonical_value(key): inner for key, inner in pairs}


# -- spelling ---------------------------------------------------------------------------------------------------------


def canonical_text(text: str) -> str:
    """Return a printed text in the spelling of all that are the same, up to the last digits of fractions."""
    return "\n".join(" ".join(map(_canonical_word, line.split())) for line in lines_of(text))


def _canonical_word(word: str) -> str:
    try:
        return _canonical_number(float(word)) if "." in word else word
    except ValueError:
        return word


def canonical_value(value: Any) -> str:
    """Return a value in the spelling of all that are equal: neither the order of sets and dictionaries matters, nor
    list or tuple, integer or float. Raises `TypeError`, `ValueError` or `RecursionError` if it is of no known form."""
    if isinstance(value, int | float):
        return _canonical_number(value)
    sequence = _sequence(value)
    if sequence is not None:
        return f"[{','.join(map(canonical_value, sequence))}]"
    if not isinstance(value, Mapping):
        return json.dumps(value)
    if "$set" in value:
        return f"set({','.join(sorted(map(canonical_value, value['$set'])))})"
    if "$bytes" in value:
        return f"bytes({value['$bytes']})"
    return f"{{{','.join(sorted(f'{key}:{canonical_value(one)}' for key, one in _entries(value).items()))}}}"


def _canonical_number(value: float) -> str:
    if isinstance(value, int):
        return str(int(value))
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.7g}"
