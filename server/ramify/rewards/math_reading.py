"""The structure of an answer: numbers, groups, names and words, read without evaluating anything.

```
Number      (math_numbers) an exact number, with the half unit of its last decimal, a percent sign and a unit
str         an answer in words, or digits in a named base (`FF base 16`): it equals its own spelling alone
Formula     LaTeX that only an algebra system can compare
Assignment       `x = …`
Chain       `a = b = …`: one answer if all are equal
Group       a list, set, tuple, interval, union or ratio of them
```

Rules that could have gone otherwise (2026-11-28), with wrong taken as right the dearer mistake: a comma between
groups of three digits groups thousands; another comma separates, and `3,14` is also the decimal 3.14 if one number
is expected; a mixed number's fraction is proper (`4 10/3` is unreadable); a numeral in a base equals the same digits
in the same base alone; units are compared only if both sides have one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ramify.rewards.answer_text import BOX, MAX_ANSWER, closing, final, tidy
from ramify.rewards.math_numbers import FUNCTIONS, Number, Unreadable, known_unit, number_of, unit_of

MAX_DEPTH = 12
"""Brackets inside brackets."""
MAX_PARTS = 64
"""Parts of one group."""


@dataclass(frozen=True, slots=True)
class Formula:
    latex: str
    relation: bool = False
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Assignment:
    name: str
    value: Reading
    equation: Formula
    """The whole of it, for a reference that is an equation."""


@dataclass(frozen=True, slots=True)
class Chain:
    parts: tuple[Reading, ...]


@dataclass(frozen=True, slots=True)
class Group:
    kind: str
    """`list`, `set`, `union`, `ratio`, or the two brackets that enclose it, such as `(]`."""
    parts: tuple[Reading, ...]
    decimal: Number | None = None
    """A list of two that may also be a number with a decimal comma."""


Reading = Number | str | Formula | Assignment | Chain | Group


def reference(answer: str) -> Reading:
    """Read a reference answer, bare or in a box or between dollars. Raises `Unreadable`."""
    inner = final(answer) if BOX.search(answer) else answer
    if inner is None:
        raise Unreadable("its box is empty")
    reading = read(inner)
    if isinstance(reading, Chain):
        numbers = [part.value for part in reading.parts if isinstance(part, Number)]
        if len(set(numbers)) > 1:
            raise Unreadable("it is an equation of different numbers")
    return reading


def read(answer: str) -> Reading:
    """Read the structure of one answer as it is written. Raises `Unreadable`."""
    if len(answer) > MAX_ANSWER:
        raise Unreadable(f"it has more than {MAX_ANSWER} characters")
    return _read(_ANNOUNCED.sub("", tidy(answer)), 0)


def _read(answer: str, depth: int) -> Reading:
    answer = answer.strip().strip(",;").strip()
    if not answer:
        raise Unreadable("it is empty")
    if depth > MAX_DEPTH:
        raise Unreadable("it is nested too deeply")
    _balanced(answer)
    if depth == 0 or not _BARE_COMMA.search(answer):
        answer = _ungrouped(answer)
    parts = _split(answer, _SEPARATOR)
    if len(parts) > 1:
        return _list(answer, parts, depth)
    if len(sides := _split(answer, _EQUALS)) > 1:
        return _equation(answer, sides, depth)
    if _RELATION.search(answer):
        return _relation(answer, depth)
    if len(parts := _split(answer, _UNION)) > 1:
        return Group("union", tuple(_read(part, depth + 1) for part in parts))
    if enclosed := _enclosed(answer):
        return _bracketed(*enclosed, depth)
    if "\\pm" in answer or "\\mp" in answer:
        return _both_signs(answer, depth)
    if len(parts := _split(answer, _COLON)) > 1:
        return Group("ratio", tuple(_read(part, depth + 1) for part in parts))
    return _leaf(answer)


# -- splitting --------------------------------------------------------------------------------------------------------

_ANNOUNCED = re.compile(r"^(?:the )?(?:final )?answer is:?\s+", re.IGNORECASE)
_SEPARATOR = re.compile(r",|;|\b(?:or|and)\b|&(?!\w)")
_BARE_COMMA = re.compile(r"\d,\d")
_EQUALS = re.compile(r"(?<![<>!:\\])=")
_RELATION = re.compile(r"[<>]|\\(?:leq|geq|neq|in|notin)(?![A-Za-z])|!=")
_UNION = re.compile(r"\\cup(?![A-Za-z])")
_COLON = re.compile(r":")
_THOUSANDS = re.compile(r"(?<![\d.,])(\d{1,3}(?:,\d{3})+)(?![\d,])")
_OPEN, _CLOSE = "([{", ")]}"


def _balanced(answer: str) -> None:
    if closing("{" + answer + "}", 0) != len(answer) + 1:
        raise Unreadable("its braces do not match")
    depth = 0
    for character in re.sub(r"\\.", "", answer):
        depth += (character in "([") - (character in ")]")
    if (
        depth
        or re.search(r"[-+*/^=]\s*$|^\s*[*/^=]", answer)
        or re.search(r"\\frac(?!\s*\{\s*[^\s}])|\(\s*\)", answer)
    ):
        raise Unreadable("it is not complete")


def _ungrouped(answer: str) -> str:
    """Drop the commas that group thousands, outside brackets."""
    if answer[0] in "([" or answer.startswith("\\{"):
        return answer
    return _THOUSANDS.sub(lambda match: match[1].replace(",", ""), answer)


def _split(answer: str, separator: re.Pattern[str]) -> list[str]:
    """Return the parts between separators that stand outside every bracket."""
    parts: list[str] = []
    depth, start, at = 0, 0, 0
    while at < len(answer):
        if answer[at] == "\\":
            if answer.startswith(("\\{", "\\langle", "\\begin"), at):
                depth += 1
            elif answer.startswith(("\\}", "\\rangle", "\\end"), at):
                depth -= 1
            elif depth == 0 and (found := separator.match(answer, at)):
                parts, start, at = [*parts, answer[start:at]], found.end(), found.end()
                continue
            at += 2
            continue
        depth += (answer[at] in _OPEN) - (answer[at] in _CLOSE)
        found = separator.match(answer, at) if depth == 0 else None
        if found:
            parts, start = [*parts, answer[start:at]], found.end()
        at = found.end() if found else at + 1
    if len(parts) >= MAX_PARTS:
        raise Unreadable("it has too many parts")
    return [*parts, answer[start:]]


# -- groups and relations ---------------------------------------------------------------------------------------------


def _list(answer: str, parts: list[str], depth: int) -> Reading:
    readings = tuple(_read(part, depth + 1) for part in parts if part.strip())
    if not readings:
        raise Unreadable("it is empty")
    if len(set(readings)) == 1:
        return readings[0]
    decimal = number_of(answer.replace(",", ".")) if re.fullmatch(r"-?\d+,\d+", answer) else None
    return Group("list", readings, decimal)


_SIMPLE = re.compile(
    r"[A-Za-z]'*(?:_\{?\w+\}?)?(?:\s*\([A-Za-z0-9, ]+\))?"
    r"|\\(?!frac|sqrt)[A-Za-z]+(?:_\{?\w+\}?)?(?:\s*\{?[A-Z]{1,4}\}?)?"
    r"|\(?[A-Za-z](?:, ?[A-Za-z])+\)?|\|?[A-Z]{2,4}\|?|[A-Za-z](?: ?[-+] ?[A-Za-z])+"
    r"|[A-Za-z]{2,3}|[A-Za-z][A-Za-z .()]{2,}"
)
"""Names that an answer may be the value of: a variable, f(x), a sum of variables, a name in words."""


def _equation(answer: str, sides: list[str], depth: int) -> Reading:
    if _SIMPLE.fullmatch(sides[0].strip()) and not number_of(sides[0].strip()):
        name = re.sub(r"[\s{}]", "", sides[0])
        rest = tuple(_read(side, depth + 1) for side in sides[1:])
        return Assignment(
            name, rest[0] if len(set(rest)) == 1 else Chain(rest), Formula(answer, relation=True)
        )
    if len(sides) == 2 and any(_variables(side) for side in sides):
        return Formula(answer, relation=True)
    return Chain(tuple(_read(side, depth + 1) for side in sides))


def _variables(side: str) -> bool:
    return bool(
        re.search(
            r"[A-Za-z]",
            re.sub(r"\\(?:frac|sqrt|cdot|times|pi|sin|cos|tan|ln|log|binom)(?![A-Za-z])|\be\b", "", side),
        )
    )


def _relation(answer: str, depth: int) -> Reading:
    member = re.fullmatch(r"\s*\(?[A-Za-z]\)?\s*\\in(?![A-Za-z])(.+)", answer)
    if member:
        return _read(member[1], depth + 1)
    return Formula(answer, relation=True)


def _enclosed(answer: str) -> tuple[str, str, str] | None:
    """Return opening bracket, inside and closing bracket if one pair encloses the whole answer."""
    if answer.startswith("\\langle") and answer.endswith("\\rangle"):
        return "(", answer[7:-7], ")"
    opening, inside, close = "", "", ""
    if answer.startswith("\\{") and answer.endswith("\\}"):
        opening, inside, close = "{", answer[2:-2], "}"
    elif answer[0] in "([]" and answer[-1] in ")][" and len(answer) > 2:
        opening, inside, close = answer[0], answer[1:-1], answer[-1]
    if not inside:
        return None
    depth = 0
    for at, character in enumerate(text := re.sub(r"\\[{}]", "__", inside)):
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            return None
        if depth == 0 and opening in "([" and text[at : at + 2] == ")(":
            return None
    return (opening, inside, close) if depth == 0 else None


def _bracketed(opening: str, inside: str, close: str, depth: int) -> Reading:
    parts = _split(inside, re.compile(r",|;"))
    if opening == "{":
        if re.search(r"\\mid|[|:]", inside):
            return f"{{{_flat(inside)}}}"
        return Group("set", tuple(dict.fromkeys(_read(part, depth + 1) for part in parts)))
    if len(parts) == 1:
        if opening == "(" and close == ")":
            return _read(inside, depth + 1)
        return Group(opening + close, (_read(inside, depth + 1),))
    kind = {"]": "(", "(": "(", "[": "["}[opening] + {"[": ")", ")": ")", "]": "]"}[close]
    return Group(kind, tuple(_read(part, depth + 1) for part in parts))


def _both_signs(answer: str, depth: int) -> Reading:
    if len(re.findall(r"\\[pm][pm](?![A-Za-z])", answer)) > 1 or "\\mp" in answer:
        return Formula(answer)
    plus, minus = (re.sub(r"\\pm\s*", sign, answer) for sign in "+-")
    return Group("list", (_read(plus.lstrip("+"), depth + 1), _read(minus, depth + 1)))


# -- leaves -----------------------------------------------------------------------------------------------------------


_BASES = {
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "twelve": 12,
    "sixteen": 16,
}
_NUMERAL = re.compile(
    r"\(?([0-9][0-9A-Fa-f]*|[0-9A-F]+(?=_\{?\s*1[1-6]))\)?\s*(?:_\s*\{?\s*|\s(?:in )?base[- ])(\w+)\s*\}?",
    re.IGNORECASE,
)
_MEASURED = re.compile(
    r"([^A-Za-z]*\\(?:pi|sqrt\s*\{[\d.]+\})(?:[^A-Za-z]*))\s+((?:square |cubic |sq |cu )?[A-Za-z][A-Za-z/^{}\d ]*)"
)
"""A formula of numbers, and a unit."""
_ANGLE = re.compile(r"(?<=[a-z({ ])(\d+(?:\.\d+)?) degrees")
"""An angle inside a formula."""

_CALLED = re.compile(rf"(?<![\\A-Za-z])({'|'.join(FUNCTIONS)})(?![A-Za-z])")
_SHORT_WORDS = frozenset({"no", "up", "on", "it", "us", "an", "am", "pm", "me", "he", "we"})


def _leaf(answer: str) -> Reading:
    if numeral := _NUMERAL.fullmatch(answer):
        base = _BASES.get(
            numeral[2].lower(), int(numeral[2]) if numeral[2].isdecimal() and len(numeral[2]) < 3 else 0
        )
        if not 2 <= base <= 36:
            raise Unreadable("its base is unknown")
        return f"{numeral[1].upper().lstrip('0') or '0'} base {base}"
    if (number := number_of(answer)) is not None:
        return number
    if re.search(r"\d\s+[\d.]|\d\s+\\frac\{\d", answer):
        raise Unreadable("numbers stand side by side")
    if measured := _MEASURED.fullmatch(answer):
        unit = unit_of(measured[2].split())
        if known_unit(unit):
            return Formula(measured[1], unit=unit)
    answer = _ANGLE.sub(r"(\\frac{\1\\pi}{180})", answer)
    latex = _CALLED.sub(r"\\\1 ", re.sub(r"\\ldots", "", answer))
    if "\\ldots" in answer:
        return _flat(answer)
    runs = re.findall(
        r"(?<![\\A-Za-z])[A-Za-z]{2,}",
        re.sub(r"\\(?:begin|end)\{[a-z]*\}|\\math\w+\{\w+\}|\\over(?:line|rightarrow)\s*\{\w+\}", "", latex),
    )
    if any(len(run) > 2 or run.lower() in _SHORT_WORDS for run in runs):
        return _flat(answer)
    return Formula(latex.replace("*", "\\cdot ").strip())


def _flat(words: str) -> str:
    """Return words without case, blanks or punctuation at the ends."""
    return re.sub(r"[\s{}]+", " ", words).strip(" .,;:'\"()").casefold()
