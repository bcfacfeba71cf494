"""The task `code`: a program is right if it passes tests that it never sees.

A sandbox runs the program and hands back what it wrote; what should have come out stays here, and here the two are
compared. So nothing that an answer prints, returns, patches or exits with can say that it passed.
"""

from __future__ import annotations

import atexit
import builtins
import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from ramify.rewards import code_data
from ramify.rewards.code_outputs import (
    USUAL,
    Tolerance,
    canonical_text,
    canonical_value,
    check_form,
    same_text,
    same_value,
)
from ramify.rewards.verifier import Example, Verifier, json_size
from ramify.sandbox import Ended, Probe, Program, Sandbox, SandboxFailed, find
from ramify.sandbox.driver import decode
from ramify.sandbox.session import IDLE
from ramify.search.protocols import GradingFailed
from ramify.search.records import Verdict

LANGUAGES = ("python",)
FENCE = re.compile(r"^```[ \t]*([\w+#.-]*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
"""A fenced block: its language and what stands in it."""
FUNCTION = re.compile(r"(?:[A-Za-z_]\w*\.)?[A-Za-z_]\w*")
FUTURE = re.compile(r"^from[ \t]+__future__[ \t]+import[ \t]*(?:\([^)]*\)|[^\n;#]*)", re.MULTILINE)
"""An import that must stand first. Elsewhere no program has such a line, but within a text."""
MAX_SHOWN = 100
"""Characters of a program's output or error that a reason repeats."""
LONGEST = 200
"""Seconds of processor time that the public tests, or the hidden ones, may take together."""
UNREADABLE = (ValueError, TypeError, RecursionError, AttributeError)
"""Raised by what is read of a program's result: the answer may have written anything."""
BRIEF = 1.0
"""Seconds for which a program may be idle on each test beside the 10 that it may be on all of them together."""
WAITING = 10.0
"""Seconds beside three times the processor time that tests may take, whatever else the machine does."""
MAX_FAILURES, MAX_PART = 3, 500
"""Failed public tests that feedback tells of, and the characters of an input or an output that it repeats."""
MIB = 1 << 20
probe = Probe()


class Case(BaseModel):
    """One test: what goes in and what must come out."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    input: JsonValue
    """The standard input as text; for a function the list of its arguments."""
    output: JsonValue
    """The text that must be printed, that is not blank; for a function its result, or `{"$truth": false}` for any that
    is false in a condition, `true` for any that is true."""
    rel_tol: Annotated[float, Field(ge=0, le=1)] | None = None
    """With `abs_tol`: by how much numbers may differ, as in `math.isclose`. Without both, a number that is expected
    with a fraction may differ by 1e-6, relatively or absolutely, and an integer not at all."""
    abs_tol: Annotated[float, Field(ge=0)] | None = None

    @property
    def tolerance(self) -> Tolerance:
        """By how much numbers may differ."""
        if self.rel_tol is None and self.abs_tol is None:
            return USUAL
        return Tolerance(self.rel_tol or 0.0, self.abs_tol or 0.0, integers=True)


class Code(Verifier):
    """A program that passes tests. The answer is the last fenced block of code, or the whole text if it has none.

    Values that JSON does not have are objects with one key: `{"$tuple": [1, 2]}`, `{"$set": [1, 2]}`,
    `{"$dict": [[1, "a"]]}`, `{"$bytes": "00ff"}`.
    """

    max_text: ClassVar[int] = 65_536
    splits: ClassVar[tuple[str, ...]] = tuple(code_data.READERS)
    # What `run` gives the longest problem, and a minute to start sandboxes in and to end them.
    grade_seconds: ClassVar[float | None] = 3.0 * LONGEST + WAITING + 60.0
    final_seconds: ClassVar[float] = 3.0 * LONGEST + WAITING + 60.0

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
            if len(cases) * self.seconds > LONGEST:
                raise ValueError(
                    f"{name} has {len(cases)} tests of {self.seconds} s of processor time; together they may have"
                    f" {LONGEST} s at most: leave tests out, or lower 'seconds'"
                )
        return self

    def _check(self, place: str, case: Case) -> None:
        json_size([case.input, case.output], place)
        if self.function:
            if not isinstance(case.input, list):
                raise ValueError(f"{place}.input must be the list of the arguments of {self.function!r}")
            check_form(case.input, f"{place}.input")
            check_form(case.output, f"{place}.output")
            try:
                decode(case.input)
            except TypeError as error:  # a set of lists, for one
                raise ValueError(f"{place}.input: {error}") from None
        elif not isinstance(case.input, str) or not isinstance(case.output, str):
            raise ValueError(f"{place} must have text as input and output, unless 'function' is named")
        elif not case.output.strip():
            raise ValueError(f"{place}.output must not be blank: a program that does nothing would pass")

    def final(self, text: str) -> str | None:
        """Return how the program behaves on the public tests; None if it fails to run on all of them.

        Without public tests a program's own text tells it from others. Raises `GradingFailed` as `grade` does.
        """
        source = self.source(text)
        if source is None or not self.public:
            return source and re.sub(r"\s+", " ", source).strip()
        return _behaviour(self.model_dump_json(), source)

    def grade(self, text: str) -> Verdict:
        """Run the program on the tests that decide. Raises `GradingFailed` if the sandbox or the machine fails."""
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
        if not self.prelude:
            return code
        futures = "".join(f"{line}\n" for line in FUTURE.findall(code))
        return f"{futures}{self.prelude}{chr(10) if blocks else ''}{FUTURE.sub('', code)}"

    @classmethod
    def examples(cls, split: str, seed: int, options: Mapping[str, str]) -> Iterator[Example]:
        """Yield the problems of a file: `code:mbpp?file=mbpp.jsonl`."""
        return code_data.read(split, options)

    @classmethod
    def unusable(cls) -> str | None:
        return probe.fault()

    def run(self, source: str, cases: tuple[Case, ...]) -> Iterator[Ended]:
        """Yield what a program does on each test; a test is sent only once the last one has ended.

        A program that was idle on one is not run on the rest, and has failed there as well. Raises `GradingFailed` if
        the sandbox fails, or if the program does not get the processor.
        """
        program = Program(code=source, function=self.function, cpu=self.seconds, memory=self.memory * MIB)
        left, patience = 3.0 * self.seconds * len(cases) + WAITING, IDLE
        for case in cases:
            began = time.monotonic()
            try:
                wall = min(3.0 * self.seconds + WAITING, left)
                ended = sandbox().run(
                    program, case.input, call=bool(self.function), wall=wall, patience=patience
                )
            except SandboxFailed as failure:
                raise GradingFailed(f"the sandbox failed: {failure}") from failure
            if ended.status == "wall":
                raise GradingFailed(
                    f"a test did not get the processor: {ended.cpu:.1f} s of it in {wall:.0f} s"
                )
            left -= time.monotonic() - began
            patience -= ended.idle if ended.idle > BRIEF else 0.0
            yield ended
            if ended.status == "idle":
                return

    def spelled(self, case: Case, ended: Ended) -> str:
        """Return what a program did on a test, in one spelling for all that do the same."""
        if self.passes(case, ended):
            return "passed"
        if ended.status != "done":
            return ended.status
        try:
            out = canonical_value(json.loads(ended.out)) if self.function else canonical_text(ended.out)
        except UNREADABLE:
            out = ended.out
        return f"done: {out}"

    def passes(self, case: Case, ended: Ended) -> bool:
        """Tell whether what a program did on a test is what it should do."""
        if ended.status != "done":
            return False
        if not self.function:
            return same_text(str(case.output), ended.out, case.tolerance)
        try:
            return same_value(case.output, json.loads(ended.out), case.tolerance)
        except UNREADABLE:
            return False


# -- in a worker process ----------------------------------------------------------------------------------------------


@cache
def sandbox() -> Sandbox:
    """Return the sandbox of this process. It starts with the first program."""
    made = Sandbox(find())
    atexit.register(made.close)
    return made


@lru_cache(maxsize=1024)
def _grade(problem: str, source: str) -> Verdict:
    """Grade a program; what could not be graded raises and is tried again."""
    code = Code.model_validate_json(problem)
    kind, cases = ("hidden", code.hidden) if code.hidden else ("public", code.public)
    passed, fault = 0, ""
    for i, (case, ended) in enumerate(zip(cases, code.run(source, cases), strict=False)):
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
    if ended.status == "idle":
        return f"it did nothing for {IDLE:.0f} s"
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
    """Return what went wrong on each public test that fails. Raises `GradingFailed` as `grade` does."""
    code = Code.model_validate_json(problem)
    failures = []
    for i, (case, ended) in enumerate(zip(code.public, code.run(source, code.public), strict=False), 1):
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
    """Say what a program does; what could not be run to its end raises and is tried again."""
    code = Code.model_validate_json(problem)
    ends = list(code.run(source, code.public))
    if all(ended.status != "done" for ended in ends):
        return None
    did = [code.spelled(case, ended) for case, ended in zip(code.public, ends, strict=False)]
    digest = hashlib.sha256(json.dumps(did).encode()).hexdigest()[:16]
    return f"{did.count('passed')} of {len(code.public)} public tests passed, outputs {digest}"
