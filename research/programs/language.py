"""Straight-line programs of an integer: their text, what they do, and how a model's text is read.

    a = x * 3 # 0 3 6 9 12 15 18 21
    b = max(a, 7) # 7 7 7 9 12 15 18 21
    return b - x # 7 6 5 6 8 10 12 14

Each line combines two operands by one of seven operators. A comment says what it comes to for the inputs that a prompt
shows: a model that writes it sees how far it has come (a scratchpad, Nye et al. 2021, arXiv:2112.00114). Comments count
for nothing. A text is parsed and its lines are computed here, never executed: that is the sandbox's, which the trainer
would wait for (a test holds the two against each other).
"""

from __future__ import annotations

import operator
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

HEAD = "def f(x):\n"
"""The line that every answer goes on from."""
NAMES = ("a", "b", "c")
"""The variables that lines but the last define, in this order."""
VARIABLES = ("x", *NAMES)
OPERATORS = ("+", "-", "*", "//", "%", "max", "min")
COMMUTES = ("+", "*", "max", "min")
CONSTANTS: Mapping[str, range] = {
    "+": range(1, 10),
    "-": range(1, 10),
    "*": range(2, 6),
    "//": range(2, 6),
    "%": range(2, 8),
    "max": range(1, 13),
    "min": range(1, 13),
}
"""Right operands that programs are drawn with."""
INPUTS = range(16)
"""The inputs of all tests. Two programs behave alike if they do so here."""
PUBLIC, HIDDEN = INPUTS[:8], INPUTS[8:]
"""Inputs of a problem's tests: those that its prompt shows, and those that decide."""
MOST = 99
"""Largest absolute value that a drawn program comes to."""
MAX_LINES = 8
"""Lines of a text that are read."""

Operand = str | int
Ints = NDArray[np.int64]
_ALL: Ints = np.array(INPUTS)
_OPERAND = r"([a-z]|-?\d+)"
_LINE = re.compile(
    rf"    (?:([a-z]) =|return) (?:{_OPERAND} (\+|-|\*|//|%) {_OPERAND}|(max|min)\({_OPERAND}, {_OPERAND}\))(?: #.*)?"
)
_RUN: Mapping[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
    "max": max,
    "min": min,
}
_RUN_ALL: Mapping[str, Callable[[Ints, Ints], Ints]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "//": np.floor_divide,
    "%": np.mod,
    "max": np.maximum,
    "min": np.minimum,
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line: `name = left operator right`, or `return …` if the name is empty."""

    name: str
    operator: str
    left: Operand
    right: Operand

    def __str__(self) -> str:
        start = f"    {self.name} =" if self.name else "    return"
        if self.operator in ("max", "min"):
            return f"{start} {self.operator}({self.left}, {self.right})"
        return f"{start} {self.left} {self.operator} {self.right}"


Program = tuple[Line, ...]


def text(program: Program) -> str:
    """Return the body of the function, each line with what it comes to, without a newline at its end."""
    lines = zip(program, _values(program), strict=True)
    return "\n".join(f"{line} # {' '.join(map(str, values[: len(PUBLIC)]))}" for line, values in lines)


def read(body: str) -> Program | None:
    """Return the program of a text; None if a line is not of this language or none returns.

    Lines behind the first `return` count for nothing, but must be lines of the language.
    """
    lines = body.split("\n")
    if len(lines) > MAX_LINES:
        return None
    program = []
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None:
            return None
        name, left, sign, right, call, first, second = match.groups()
        program.append(Line(name or "", sign or call, _operand(left or first), _operand(right or second)))
    ends = [i for i, line in enumerate(program) if not line.name]
    return tuple(program[: ends[0] + 1]) if ends else None


def run(program: Program, x: int) -> int | None:
    """Return what the function returns; None if it raises."""
    known = {"x": x}
    result = 0
    try:
        for line in program:
            left, right = (v if isinstance(v, int) else known[v] for v in (line.left, line.right))
            result = _RUN[line.operator](left, right)
            known[line.name] = result
    except (KeyError, ZeroDivisionError):
        return None
    return result


def behaviour(program: Program) -> bytes | None:
    """Return what a drawn program does on all inputs, equal for programs that behave alike; None if a value is too
    large."""
    values = _values(program)
    return None if max(np.abs(one).max() for one in values) > MOST else values[-1].astype(np.int8).tobytes()


def _values(program: Program) -> list[Ints]:
    """Return what each line of a drawn program comes to on all inputs."""
    known: dict[Operand, Ints] = {"x": _ALL}
    for line in program:
        right = known[line.right] if isinstance(line.right, str) else np.int64(line.right)
        known[line.name] = _RUN_ALL[line.operator](known[line.left], right)  # type: ignore[arg-type]
    return list(known.values())[1:]


def results(behaving: bytes) -> list[int]:
    """Return the results on all inputs of a behaviour."""
    return [int(result) for result in np.frombuffer(behaving, np.int8)]


def draw(lines: int, rng: random.Random) -> Program:
    """Draw a program whose lines are all used."""
    while True:
        program = tuple(_line(i, lines, rng) for i in range(lines))
        used = {v for line in program for v in (line.left, line.right)}
        if used.issuperset(NAMES[: lines - 1]):
            return program


def _line(i: int, lines: int, rng: random.Random) -> Line:
    visible = ["x", *NAMES[:i]]
    sign = rng.choice(OPERATORS)
    left = rng.choice(visible)
    others: Sequence[str] = [] if sign in ("//", "%") else [v for v in visible if v != left]
    right: Operand = rng.choice(others) if others and rng.random() < 0.5 else rng.choice(CONSTANTS[sign])
    if sign in COMMUTES and isinstance(right, str) and visible.index(left) < visible.index(right):
        left, right = right, left
    return Line(NAMES[i] if i < lines - 1 else "", sign, left, right)


@cache
def every(lines: int) -> frozenset[bytes]:
    """Return the behaviours of all programs of at most so many lines, 0 to 2."""
    if lines == 0:
        return frozenset([_ALL.astype(np.int8).tobytes()])
    programs: list[Program] = [()]
    for i in range(lines):
        programs = [(*program, line) for program in programs for line in _all_lines(i, lines)]
    return every(lines - 1).union(filter(None, map(behaviour, programs)))


def _all_lines(i: int, lines: int) -> list[Line]:
    visible = ["x", *NAMES[:i]]
    name = NAMES[i] if i < lines - 1 else ""
    made = []
    for sign in OPERATORS:
        for left in visible:
            others = [] if sign in ("//", "%") else [v for v in visible if v != left]
            made += [Line(name, sign, left, right) for right in (*others, *CONSTANTS[sign])]
    return made


def _operand(word: str) -> Operand:
    return word if word.isalpha() else int(word)
