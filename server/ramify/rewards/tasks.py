"""The shipped tasks: `countdown`, `exact`, `math` and `none`. None of them evaluates an answer's text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, field_validator

from ramify.rewards import countdown, countdown_data, math_reading
from ramify.rewards.answer_text import BOX, bare, final, marked, scope
from ramify.rewards.math_numbers import Unreadable
from ramify.rewards.verifier import Example, Verifier
from ramify.search.protocols import GradingFailed
from ramify.search.records import Verdict

MAX_TEXT = 20_000
"""Characters of an answer that `exact` looks at, counted from its end."""
MAX_SHOWN = 100
"""Characters of an answer that a reason repeats."""
MAX_PER_SIZE = 5_000
"""Countdown problems of one number count: well below how many different ones a split has."""

EXPLAINED = re.compile(
    r"(?:,? because\b|, (?:since|which|as)\b|\.\s+(?:It|This|That|The|I|Because|Since|So)\b)(?!.*\bor\b).*",
    re.DOTALL,
)
"""An explanation that may follow an answer on its line; none if it holds an *or*."""


def _not_blank(answer: str) -> str:
    if not answer.strip():
        raise ValueError("must be a string that is not blank")
    return answer


Reference = Annotated[str, Field(max_length=1_000), AfterValidator(_not_blank)]
"""A reference answer: at most 1,000 characters, not blank."""


class Countdown(Verifier):
    """Reach `target` with each of `numbers` used once; the final answer is the canonical expression.

    Its data sets are generated: `countdown:test` has problems of 4, 5 and 6 numbers in turn,
    `countdown:test?numbers=5,6` those of 5 and 6 numbers only.
    """

    in_process: ClassVar[bool] = True
    splits: ClassVar[tuple[str, ...]] = ("train", "dev", "test")

    numbers: Annotated[
        tuple[Annotated[int, Field(ge=1, le=countdown.MAX_RESULT)], ...],
        Field(min_length=1, max_length=countdown.MAX_NUMBERS),
    ]
    """In the prompt's order."""
    target: Annotated[int, Field(ge=0, le=countdown.MAX_RESULT)]

    def final(self, text: str) -> str | None:
        """Return the canonical expression of an answer, or None if the text is no complete calculation."""
        return countdown.final_answer(text)

    def grade(self, text: str) -> Verdict:
        """Give 1 if every line is right, every number is used once and the last result is the target."""
        return countdown.grade({"numbers": list(self.numbers), "target": self.target}, text)

    def feedback(self, text: str, outcome: float | None) -> str:
        """Return the verifier's reason: the prompt states all that it is made of."""
        return self.grade(text).reason

    @classmethod
    def read_prompt(cls, prompt: str) -> tuple[Mapping[str, Any], str] | None:
        problem = countdown.parse_prompt(prompt)
        return None if problem is None else (problem, countdown.prompt(problem))

    @classmethod
    def examples(cls, split: str, seed: int, options: Mapping[str, str]) -> Iterator[Example]:
        counts = _counts(options)
        problems = countdown_data.generate(countdown_data.SPLITS[split], seed, counts)
        for problem, _ in zip(problems, range(MAX_PER_SIZE * len(counts)), strict=False):
            numbers, target = problem["numbers"], problem["target"]
            yield Example(
                id=f"countdown:{' '.join(map(str, numbers))} to {target}",
                prompt=countdown.prompt(problem),
                problem={"numbers": list(numbers), "target": target},
                group=f"{len(numbers)} numbers",
            )


class Exact(Verifier):
    """One right answer, compared as text, whole: a hedge (`Paris or London`) is another answer. See `bare`; case
    counts unless the problem says `ignore_case`."""

    in_process: ClassVar[bool] = True

    answer: Reference
    """One line."""
    ignore_case: bool = False

    @field_validator("answer")
    @classmethod
    def _one_line(cls, answer: str) -> str:
        if len(answer.strip().splitlines()) > 1:
            raise ValueError("must be one line: only one line of an answer is compared with it")
        if not bare(answer):
            raise ValueError("holds nothing but punctuation")
        return answer

    def final(self, text: str) -> str | None:
        """Return the text's answer, normalised, or None if it has none."""
        line = answer_line(text)
        return None if line is None else self._normal(line) or None

    def grade(self, text: str) -> Verdict:
        """Give 1 if the text's answer is the reference."""
        answer, right = self.final(text), self._normal(self.answer)
        if answer is None:
            return Verdict(0.0, "the text holds no answer")
        if answer != right:
            return Verdict(0.0, f"the answer is {shown(answer)}, not {shown(right)}")
        return Verdict(1.0, "correct")

    def feedback(self, text: str, outcome: float | None) -> str:
        """Repeat the text's answer, with the verdict on it."""
        return judged(self.final(text), outcome)

    @property
    def feedback_needs_outcome(self) -> bool:
        return True

    def _normal(self, line: str) -> str:
        line = bare(line)
        return line.casefold() if self.ignore_case else line


class Math(Verifier):
    """One right answer, compared as mathematics, pair by pair.

    Formulas go to a computer algebra system, which may take for ever on one: all of it happens in worker processes.
    """

    answer: Reference
    """LaTeX or a plain expression that has one reading."""

    @field_validator("answer")
    @classmethod
    def _readable(cls, answer: str) -> str:
        try:
            math_reading.reference(answer)
        except Unreadable as error:
            raise ValueError(f"cannot be read as mathematics: {error}") from error
        return answer

    def final(self, text: str) -> str | None:
        answer: str | None = _equality().extract(text)
        return answer

    def grade(self, text: str) -> Verdict:
        """Give 1 if the text's answer equals the reference."""
        answer, equal = _equality().compare(self.answer, text)
        if equal:
            return Verdict(1.0, "correct")
        if answer is None:
            return Verdict(0.0, "no answer was found in the text")
        return Verdict(0.0, f"the answer is {shown(answer)}, not {shown(self.answer)}")

    def feedback(self, text: str, outcome: float | None) -> str:
        """Repeat the text's answer, with the verdict on it."""
        return judged(self.final(text), outcome)

    @property
    def feedback_needs_outcome(self) -> bool:
        return True

    def match(self, text: str, others: Sequence[str]) -> int | None:
        equal: int | None = _equality().match(text, others)
        return equal

    @classmethod
    def warm_up(cls) -> None:
        _equality()


class Free(Verifier):
    """No task: the whole text is the answer, and nobody can say whether it is right."""

    in_process: ClassVar[bool] = True


def _equality() -> Any:
    """Return the comparison of formulas, which only worker processes import: it takes seconds and 100 MB."""
    from ramify.rewards import math_equality

    return math_equality


def _counts(options: Mapping[str, str]) -> tuple[int, ...]:
    """Read how many numbers the problems have: `numbers=5,6`."""
    if not options:
        return countdown_data.COUNTS
    allowed = {str(count): count for count in countdown_data.COUNTS}
    values = options["numbers"].split(",") if set(options) == {"numbers"} else []
    if not values or len(set(values)) < len(values) or not set(values) <= set(allowed):
        some = ",".join(allowed)
        raise ValueError(f"write ?numbers= and some of {some}, such as ?numbers={some}")
    return tuple(allowed[value] for value in values)


def answer_line(text: str) -> str | None:
    """Return the line of a text that holds its answer; `None` if there is none.

    It is what the last box holds; else what follows the last marker (`Answer:`, `answer is` or `####`) on its line or
    the next line that is not blank, together with a line after it that begins with *or*; else the last line that says
    anything.
    """
    text = scope(text[-MAX_TEXT:])
    if BOX.search(text):
        return final(text)
    following = marked(text)
    if following is None:
        return next((line for line in reversed(text.splitlines()) if bare(line)), None)
    lines = [line for line in following if bare(line)]
    if not lines:
        return None
    hedge = lines[1] if len(lines) > 1 and lines[1].lower().startswith("or ") else ""
    return EXPLAINED.sub("", lines[0]) + hedge


def shown(text: str) -> str:
    """Quote a text for a reason, cut if it is long."""
    return repr(text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…")


def judged(answer: str | None, outcome: float | None) -> str:
    """Say what is known of an answer without the reference. Raises `GradingFailed` if that is nothing."""
    if answer is None:
        return "no answer was found in the text"
    if outcome is None:
        raise GradingFailed("without the verifier's verdict nothing can be said of an answer")
    return f"the answer {shown(answer)} is {'right' if outcome >= 1 else 'not right'}"
