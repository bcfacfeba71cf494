"""Numbers as people write them, with what may stand around them: currency, percent, multiples, units."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction

MAX_DIGITS = 400
"""Digits of a number, and the largest power of ten."""


class Unreadable(ValueError):
    """The answer has no one reading."""


@dataclass(frozen=True, slots=True)
class Number:
    value: Fraction
    half: Fraction | None = None
    """Half a unit of the last place of a decimal that has six significant digits or more; `None`: exact."""
    percent: bool = False
    """`value` is what stands before the percent sign."""
    unit: str = ""


_DECIMAL = r"\d+(?:\.\d*)?|\.\d+"
_POWER = r"\s*(?:\\times|\\cdot|\*|[xX])\s*10\s*\^\s*\{\s*(?P<power>[-+]?\d+)\s*\}"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)\s*(?:"
    rf"(?P<whole>\d+)\s*\\frac\s*\{{\s*(?P<wa>\d+)\s*\}}\s*\{{\s*(?P<wb>\d+)\s*\}}"
    rf"|(?P<pwhole>\d+)\s+(?P<pa>\d+)\s*/\s*(?P<pb>\d+)"
    rf"|\\frac\s*\{{\s*(?P<fs>[-+]?)(?P<fa>{_DECIMAL})\s*\}}\s*\{{\s*(?P<fb>{_DECIMAL})\s*\}}"
    rf"|(?P<ra>{_DECIMAL})\s*/\s*(?P<rb>{_DECIMAL})"
    rf"|(?P<before>\d*)\.(?P<fixed>\d*)\\overline\s*\{{(?P<again>\d+)\}}"
    rf"|10\s*\^\s*\{{\s*(?P<ten>[-+]?\d+)\s*\}}"
    rf"|(?P<grouped>\d{{1,3}}(?:[ '_]\d{{3}})+(?:\.\d+)?)(?!\d)"
    rf"|(?P<decimal>{_DECIMAL})(?:[eE](?P<exponent>[-+]?\d+)|{_POWER})?"
    rf")"
)
_MANY = {
    "hundred": 100,
    "thousand": 1000,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "dozen": 12,
}
_CONNECTIVES = frozenset(
    {
        "or",
        "and",
        "not",
        "if",
        "when",
        "where",
        "is",
        "to",
        "than",
        "but",
        "for",
        "maybe",
        "with",
        "either",
        "then",
    }
    | {"plus", "minus", "times", "over", "of", "nor", "no"}
)
FUNCTIONS = (
    *(
        "arcsin",
        "arccos",
        "arctan",
        "sinh",
        "cosh",
        "tanh",
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "ln",
        "log",
        "exp",
    ),
    *("pi", "theta", "alpha", "beta", "gamma", "lambda", "mu", "sigma", "phi", "omega", "infty"),
)
_UNITS = {
    name: unit
    for unit, names in {
        "m": "m meter metre",
        "cm": "cm centimeter centimetre",
        "mm": "mm millimeter millimetre",
        "km": "km kilometer kilometre",
        "ft": "ft foot feet",
        "in": "in inch inches",
        "yd": "yd yard",
        "mi": "mi mile",
        "g": "g gram",
        "kg": "kg kilogram",
        "mg": "mg milligram",
        "lb": "lb lbs pound",
        "oz": "oz ounce",
        "s": "s sec second",
        "min": "min minute",
        "h": "h hr hour",
        "ms": "ms millisecond",
        "l": "l liter litre",
        "ml": "ml milliliter millilitre",
        "n": "n newton",
        "j": "j joule",
        "w": "w watt",
        "v": "v volt",
        "k": "k kelvin",
        "hz": "hz hertz",
        "pa": "pa pascal",
        "mol": "mol mole",
        "rad": "rad radian",
        "degree": "degree deg",
        "dollar": "dollar usd",
        "euro": "euro eur",
        "cent": "cent",
        "mph": "mph",
        "unit": "unit",
        "kmh": "kmh kph",
    }.items()
    for name in names.split()
}


def known_unit(unit: str) -> bool:
    """Tell whether it is, or begins with, a unit of the table."""
    return re.split(r"[/^\d*]+", unit)[0] in _UNITS.values()


def number_of(answer: str) -> Number | None:
    """Read a number with what may stand around it; `None` if the text is another thing. Raises `Unreadable`."""
    answer = re.sub(r"^([-+]?)\s*(?:\\\$|\$)\s*", r"\1", answer)
    match = _NUMBER.match(answer)
    if match is None:
        return None
    rest = answer[match.end() :]
    if rest and re.match(r"[\d./^_!(]|\s*[-+*/^_!(=\\]", rest):
        return None
    number = _value({name: text for name, text in match.groupdict().items() if text is not None})
    return _with_unit(number, rest)


def _with_unit(number: Number, rest: str) -> Number | None:
    words = rest.split()
    if words and words[0] in _MANY:
        number = replace(number, value=number.value * _MANY[words.pop(0)], half=None)
    if words and words[0].lower() in ("percent", "percentage", "pct"):
        return replace(number, percent=True) if len(words) == 1 else None
    if not words:
        return number
    if len(words) > 4 or any(word.lower() in _CONNECTIVES for word in words):
        return None
    unit = unit_of(words)
    known = known_unit(unit)
    spelled = (
        rest[0] == " "
        and all(re.fullmatch(r"[A-Za-z]{3,}\.?|[A-Za-z/^{}\d-]+", word) for word in words)
        and len(words[0]) > 2
    )
    if known and (rest[0] == " " or len(unit) > 1):
        return replace(number, unit=unit)
    return replace(number, unit=unit) if spelled and words[0].lower() not in FUNCTIONS else None


def unit_of(words: list[str]) -> str:
    text = " ".join(words).replace("per ", "/ ")
    power = "2" if re.match(r"(?:square|sq)\b", text) else "3" if re.match(r"(?:cubic|cu)\b", text) else ""
    text = re.sub(r"^(?:square|sq|cubic|cu)\b\.?\s*", "", text)

    def single(match: re.Match[str]) -> str:
        word = match[0].lower()
        return _UNITS.get(word) or _UNITS.get(word.removesuffix("s")) or word.removesuffix("s")

    return re.sub(r"[\s{}^.]", "", re.sub(r"[A-Za-z]+", single, text)) + power


def _value(g: dict[str, str]) -> Number:
    sign = -1 if g.get("sign") == "-" else 1
    if any(len(part) > MAX_DIGITS for part in g.values()):
        raise Unreadable(f"it has more than {MAX_DIGITS} digits")
    for whole, above, below in (("whole", "wa", "wb"), ("pwhole", "pa", "pb")):
        if whole in g:
            if not 0 <= int(g[above]) < int(g[below]):
                raise Unreadable("the fraction of a mixed number must be below 1")
            return Number(sign * (int(g[whole]) + Fraction(int(g[above]), int(g[below]))))
    for above, below in (("fa", "fb"), ("ra", "rb")):
        if above in g:
            if not Fraction(g[below]):
                raise Unreadable("it divides by zero")
            return Number(sign * (-1 if g.get("fs") == "-" else 1) * Fraction(g[above]) / Fraction(g[below]))
    if "again" in g:
        fixed, again = g["fixed"], g["again"]
        tail = Fraction(int(again), 10 ** len(fixed) * (10 ** len(again) - 1))
        return Number(sign * (Fraction(int((g["before"] or "0") + fixed), 10 ** len(fixed)) + tail))
    if "ten" in g:
        return Number(sign * Fraction(10) ** _power(g["ten"]))
    digits = re.sub(r"[ '_]", "", g.get("grouped") or g["decimal"])
    scale = Fraction(10) ** _power(g.get("exponent") or g.get("power") or "0")
    places = len(digits.partition(".")[2])
    significant = len(digits.replace(".", "").lstrip("0"))
    half = scale / 10**places / 2 if places and significant >= 6 else None
    return Number(sign * Fraction(digits) * scale, half)


def _power(digits: str) -> int:
    if abs(int(digits)) > MAX_DIGITS:
        raise Unreadable(f"it has more than {MAX_DIGITS} digits")
    return int(digits)
