"""The task `code`: a program is right if it passes tests that it never sees.

A sandbox runs the program and hands back what it wrote; what should have come out stays here, and here the two are
compared. So nothing that an answer prints, returns, patches or exits with can say that it passed.
"""

from __future__ import annotations

import builtins
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from ramify.rewards import code_data
from ramify.rewards.verifier import Example, Verifier
from ramify.sandbox import Bubblewrap, Ended, Program, Sandbox, SandboxFailed, find
from ramify.search.protocols import GradingFailed
from ramify.search.records import Verdict

LANGUAGES = ("python",)
FENCE = re.compile(r"^```[ \t]*([\w+#.-]*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
"""A fenced block: its language and what stands in it."""
FUNCTION = re.compile(r"(?:[A-Za-z_]\w*\.)?[A-Za-z_]\w*")
TOLERANCE = 1e-6
"""Relative or absolute difference up to which numbers are equal if one of them has a fraction."""
MAX_SHOWN = 100
"""Characters of a program's output or error that a reason repeats."""
WAITING = 10.0
"""Seconds beside three times the processor time that a test may take, whatever else the machine does."""
MAX_FAILURES, MAX_PART = 3, 500
"""Failed public tests that feedback tells of, and the characters of an input or an output that it repeats."""
MIB = 1 << 20


class Case(BaseModel):
    """One test: what goes in and what must come out."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    input: JsonValue
    """The standard input as text; for a function the list of its arguments."""
    output: JsonValue
    """The text that must be printed, that is not blank; for a function its result."""


class Code(Verifier):
    """A program that passes tests. The answer is the last fenced block of code, or the whole text if it has none.

    Values that JSON does not have are objects with one key: `{"$tuple": [1, 2]}`, `{"$set": [1, 2]}`,
    `{"$dict": [[1, "a"]]}`, `{"$bytes": "00ff"}`.
    """

    max_text: ClassVar[int] = 65_536
    splits: ClassVar[tuple[str, ...]] = tuple(code_data.READERS)
    grade_seconds: ClassVar[float | None] = 120.0
    final_seconds: ClassVar[float] = 60.0

    language: str = "python"
    public: Annotated[tuple[Case, ...], Field(max_length=20)] = ()
    """Tests that the prompt shows; equal answers do the same on them."""
    hidden: Annotated[tuple[Case, ...], Field(max_length=200)] = ()
    """Tests that decide; without any the public ones do."""
    function: Annotated[str, Field(max_length=100)] = ""
    """The function, or `Class.method`, that tests call; empty: the program reads standard input and prints."""
    prelude: Annotated[str, Field(max_length=20_000)] = ""
    """Code that is put before the answer, such as imports or the head of a function that the answer goes on with."""
    seconds: Annotated[int, Field(ge=1, le=20)] = 2
    """Processor time for each test."""
    memory: Annotated[int, Field(ge=64, le=768)] = 256
    """MiB of address space for each test."""
    scoring: Literal["all", "share"] = "all"
    """`all`: 1 if every test passes, else 0. `share`: the share of tests that pass."""

    @field_validator("language")
    @classmethod
    def _known(cls, language: str) -> str:
        if language not in LANGUAGES:
            raise ValueError(f"unknown language {language[:50]!r}; there are {', '.join(LANGUAGES)}")
        return language

    @field_validator("function")
    @classmethod
    def _name(cls, function: str) -> str:
        if function and not FUNCTION.fullmatch(function):
            raise ValueError("must be the name of a function, or Class.method")
        return function

    @model_validator(mode="after")
    def _tests(self) -> Self:
        if not self.public and not self.hidden:
            raise ValueError("has neither 'public' nor 'hidden' tests")
        for name, cases in (("public", self.public), ("hidden", self.hidden)):
            for i, case in enumerate(cases):
                self._check(f"{name}.{i}", case)
        return self

    def _check(self, place: str, case: Case) -> None:
        try:
            json.dumps([case.input, case.output], allow_nan=False)
        except ValueError:
            raise ValueError(f"{place} holds a number that is not finite, which JSON does not have") from None
        if self.function:
            if not isinstance(case.input, list):
                raise ValueError(f"{place}.input must be the list of the arguments of {self.function!r}")
        elif not isinstance(case.input, str) or not isinstance(case.output, str):
            raise ValueError(f"{place} must have text as input and output, unless 'function' is named")
        elif not case.output.strip():
            raise ValueError(f"{place}.output must not be blank: a program that does nothing would pass")

    def final(self, text: str) -> str | None:
        """Return how the program behaves on the public tests; None if it fails to run on all of them.

        Without public tests a program's own text tells it from others.
        """
        source = self.source(text)
        if source is None or not self.public:
            return source and re.sub(r"\s+", " ", source).strip()
        return _behaviour(self.model_dump_json(), source)

    def grade(self, text: str) -> Verdict:
        """Run the program on the tests that decide. Raises `GradingFailed` if one neither ends nor uses its time."""
        source = self.source(text)
        if source is None:
            return Verdict(0.0, "the answer holds no code")
        return _grade(self.model_dump_json(), source)

    def feedback(self, text: str, outcome: float | None) -> str:
        """Tell which public tests fail, and how; of the hidden ones only, by the verdict, that some do."""
        source = self.source(text)
        if source is None:
            return "The answer holds no code."
        failures = _failures(self.model_dump_json(), source)
        if failures:
            return "\n\n".join(failures[:MAX_FAILURES])
        if outcome is None and not self.public:
            raise GradingFailed("without public tests and without a verdict nothing can be said of a program")
        passed = f"All {len(self.public)} public tests pass" if self.public else "The program runs"
        return (
            f"{passed}, but tests that are not shown fail."
            if outcome is not None and outcome < 1
            else f"{passed}."
        )

    @property
    def feedback_needs_outcome(self) -> bool:
        return not self.public

    def source(self, text: str) -> str | None:
        """Return the program of an answer, behind the prelude; None if there is none."""
        text = text.rpartition("</think>")[2]
        blocks = FENCE.findall(text)
        code = blocks[-1][1] if blocks else text
        if not code.strip():
            return None
        return f"{self.prelude}\n{code}" if blocks and self.prelude else self.prelude + code

    @classmethod
    def examples(cls, split: str, seed: int, options: Mapping[str, str]) -> Iterator[Example]:
        """Yield the problems of a file: `code:mbpp?file=mbpp.jsonl`."""
        return code_data.read(split, options)

    @classmethod
    def unusable(cls) -> str | None:
        return _unusable()

    def run(self, source: str, cases: tuple[Case, ...]) -> Iterator[Ended]:
        """Yield what a program does on each test, in one sandbox; a test is sent only once the last one has ended."""
        program = Program(
            code=source,
            function=self.function,
            cpu=self.seconds,
            wall=3.0 * self.seconds + WAITING,
            memory=self.memory * MIB,
        )
        try:
            with Sandbox(_sandbox(), program) as sandbox:
                for case in cases:
                    yield sandbox.run(case.input, call=bool(self.function))
        except SandboxFailed as failure:
            raise GradingFailed(f"the sandbox failed: {failure}") from failure

    def passes(self, case: Case, ended: Ended) -> bool:
        """Tell whether what a program did on a test is what it should do."""
        if ended.status != "done":
            return False
        if not self.function:
            return same_text(str(case.output), ended.out)
        try:
            return same_value(case.output, json.loads(ended.out))
        except (ValueError, TypeError, RecursionError):  # the answer may have written anything
            return False


# -- in a worker process ----------------------------------------------------------------------------------------------


@cache
def _sandbox() -> Bubblewrap:
    return find()


@cache
def _unusable() -> str | None:
    """Return why no code can be run here; None if a program just did."""
    try:
        program = Program(code="print(input())", cpu=5, wall=30.0, memory=256 * MIB)
        with Sandbox(find(), program) as sandbox:
            ended = sandbox.run("7 times 6", call=False)
    except SandboxFailed as failure:
        return f"code cannot be run safely here: {failure}"
    return (
        None if ended.out == "7 times 6\n" else f"code cannot be run safely here: a trial ended with {ended}"
    )


@lru_cache(maxsize=1024)
def _grade(problem: str, source: str) -> Verdict:
    """Grade a program; what could not be graded raises and is tried again."""
    code = Code.model_validate_json(problem)
    kind, cases = ("hidden", code.hidden) if code.hidden else ("public", code.public)
    passed, fault = 0, ""
    for i, (case, ended) in enumerate(zip(cases, code.run(source, cases), strict=False)):
        if ended.status == "wall":
            raise GradingFailed(f"{kind} test {i + 1} neither ended nor used up its processor time")
        if code.passes(case, ended):
            passed += 1
            continue
        fault = fault or f"; {kind} test {i + 1}: {_fault(code, ended, shown=kind == 'public')}"
        if code.scoring == "all":
            return Verdict(0.0, f"not all of {len(cases)} {kind} tests passed{fault}")
    return Verdict(passed / len(cases), f"{passed} of {len(cases)} {kind} tests passed{fault}")


def _fault(code: Code, ended: Ended, *, shown: bool) -> str:
    """Say what was wrong. Of a hidden test nothing is repeated that could hold its input."""
    if ended.status == "cpu":
        return f"more than {code.seconds} s of processor time"
    if ended.status == "output":
        return "too much output"
    if ended.status == "error":
        error = ended.err if shown else _builtin_exception(ended.err.partition(":")[0])
        return f"it failed{': ' + error[:MAX_SHOWN] if error.strip() else ''}"
    return f"wrong output {ended.out[:MAX_SHOWN]!r}" if shown else "wrong output"


def _builtin_exception(name: str) -> str:
    """Return the name of one of Python's own exceptions as it is, of any other none: answers name them at will."""
    known = getattr(builtins, name, None)
    return name if isinstance(known, type) and issubclass(known, BaseException) else ""


@lru_cache(maxsize=1024)
def _failures(problem: str, source: str) -> tuple[str, ...]:
    """Return what went wrong on each public test that fails. Raises `GradingFailed` if one neither ends nor uses its
    time."""
    code = Code.model_validate_json(problem)
    failures = []
    for i, (case, ended) in enumerate(zip(code.public, code.run(source, code.public), strict=False), 1):
        if ended.status == "wall":
            raise GradingFailed(f"public test {i} neither ended nor used up its processor time")
        if not code.passes(case, ended):
            failures.append(f"Public test {i} of {len(code.public)} fails.\n{_told(code, case, ended)}")
    return tuple(failures)


def _told(code: Code, case: Case, ended: Ended) -> str:
    """Tell what went into a public test, what should have come out, and what did."""
    if code.function:
        given = json.dumps(case.input)[1:-1]
        expected = _cut(json.dumps(case.output))
        return f"Call: {code.function}({_cut(given)})\nExpected: {expected}\nGot: {_outcome(code, ended)}"
    given, expected = _cut(str(case.input)), _cut(str(case.output))
    return f"Input:\n{given}\nExpected output:\n{expected}\nGot:\n{_outcome(code, ended)}"


def _outcome(code: Code, ended: Ended) -> str:
    """Return what a program wrote or returned, or how it failed."""
    return _cut(ended.out) if ended.status == "done" else _fault(code, ended, shown=True)


def _cut(text: str) -> str:
    text = text.strip()
    return text if len(text) <= MAX_PART else f"{text[:MAX_PART]}…"


@lru_cache(maxsize=1024)
def _behaviour(problem: str, source: str) -> str | None:
    code = Code.model_validate_json(problem)
    ends = list(code.run(source, code.public))
    if all(ended.status != "done" for ended in ends):
        return None
    passed = sum(map(code.passes, code.public, ends))
    did = json.dumps([_spelled(code, ended) for ended in ends])
    return f"{passed} of {len(ends)} public tests passed, outputs {hashlib.sha256(did.encode()).hexdigest()[:16]}"


def _spelled(code: Code, ended: Ended) -> list[str]:
    out = "\n".join(lines_of(ended.out)) if not code.function else ended.out
    return [ended.status, out if ended.status == "done" else ""]


# -- comparing --------------------------------------------------------------------------------------------------------


def same_text(expected: str, printed: str) -> bool:
    """Compare line by line, blanks at the ends aside; numbers with a fraction up to `TOLERANCE`."""
    these, those = lines_of(expected), lines_of(printed)
    return len(these) == len(those) and all(map(_same_line, these, those))


def lines_of(text: str) -> list[str]:
    """Return the lines of a text without blanks at their ends and blank lines around them."""
    return [line.strip() for line in text.strip().splitlines()]


def _same_line(expected: str, printed: str) -> bool:
    these, those = expected.split(), printed.split()
    return len(these) == len(those) and all(map(_same_word, these, those))


def _same_word(expected: str, printed: str) -> bool:
    if expected == printed:
        return True
    try:
        return "." in expected and _close(float(expected), float(printed))
    except ValueError:
        return False


def same_value(expected: Any, result: Any) -> bool:
    """Compare values as `sandbox.driver.encode` gives them: as Python does, but lists equal tuples, and numbers with a
    fraction are compared up to `TOLERANCE`."""
    if isinstance(expected, bool | int | float) and isinstance(result, bool | int | float):
        return expected == result if isinstance(expected, int) else _close(expected, result)
    these, those = _sequence(expected), _sequence(result)
    if these is not None and those is not None:
        return len(these) == len(those) and all(map(same_value, these, those))
    if not (isinstance(expected, Mapping) and isinstance(result, Mapping)):
        return bool(expected == result)
    if "$set" in expected and "$set" in result:
        return sorted(map(_canonical, expected["$set"])) == sorted(map(_canonical, result["$set"]))
    entries, others = _entries(expected), _entries(result)
    return entries.keys() == others.keys() and all(same_value(entries[key], others[key]) for key in entries)


def _sequence(value: Any) -> list[Any] | None:
    inner = value.get("$tuple") if isinstance(value, Mapping) else value
    return inner if isinstance(inner, list) else None


def _entries(value: Mapping[str, Any]) -> dict[str, Any]:
    pairs = value["$dict"] if "$dict" in value else value.items()
    return {_canonical(key): inner for key, inner in pairs}


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _close(a: float, b: float) -> bool:
    try:
        return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE) or (math.isnan(a) and math.isnan(b))
    except OverflowError:  # an integer that no float can hold
        return False
