"""The tasks that judge in this process: `countdown`, `exact` and `none`. None of them evaluates an answer's
text."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from ramify.rewards import countdown
from ramify.rewards.errors import NoVerifier
from ramify.rewards.schemas import CountdownProblem, ExactProblem
from ramify.search.records import Verdict

MAX_TEXT = 20_000
"""Characters of an answer that `exact` looks at, counted from its end."""
MAX_SHOWN = 100
"""Characters of an answer that a reason repeats."""

MARKERS = ("answer:", "####")
"""What may stand before a final answer, in any case; the last of them in a text counts."""


class CountdownTask:
    """Countdown: the final answer is the canonical expression."""

    def __init__(self, problem: CountdownProblem) -> None:
        self._problem = {"numbers": list(problem.numbers), "target": problem.target}

    async def finals(self, texts: Sequence[str]) -> list[str | None]:
        """The canonical expression of each answer; `None` where a text is no complete calculation."""
        return [countdown.final_answer(text) for text in texts]

    async def grade(self, text: str) -> Verdict:
        """1 where every line is right, every number is used once and the last result is the target."""
        grade = countdown.grade(self._problem, text)
        return Verdict(grade.outcome, grade.reason)


class ExactTask:
    """One right answer, compared as text: blanks collapsed, Unicode composed (NFC), case ignored if asked."""

    def __init__(self, problem: ExactProblem) -> None:
        self._ignore_case = problem.ignore_case
        self._answer = self._normal(problem.answer)

    async def finals(self, texts: Sequence[str]) -> list[str | None]:
        """Each text's answer, normalised; `None` where there is none."""
        return [self._final(text) for text in texts]

    async def grade(self, text: str) -> Verdict:
        """1 where the text's answer is the reference."""
        final = self._final(text)
        if final is None:
            return Verdict(0.0, "the text holds no answer")
        if final != self._answer:
            return Verdict(0.0, f"the answer is {shown(final)}, not {shown(self._answer)}")
        return Verdict(1.0, "correct")

    def _final(self, text: str) -> str | None:
        line = answer_line(text)
        return None if line is None else self._normal(line)

    def _normal(self, line: str) -> str:
        line = " ".join(unicodedata.normalize("NFC", line).split())
        return line.casefold() if self._ignore_case else line


class FreeTask:
    """No task: the whole text is the answer, and nobody can say whether it is right."""

    async def finals(self, texts: Sequence[str]) -> list[str | None]:
        """Each text, stripped; `None` for a blank one."""
        return [text.strip() or None for text in texts]

    async def grade(self, text: str) -> Verdict:
        """Raises `NoVerifier`, always."""
        raise NoVerifier(
            "no task was named, so no verifier can grade; name one in `task`, or use `grader: model`"
        )


def answer_line(text: str) -> str | None:
    """The line of a text that holds its answer; `None` where the text is blank.

    That is what follows the last marker (`Answer:` or `####`) on its line, or else on the next line that is
    not blank; without a marker, the last line that is not blank.
    """
    text = text[-MAX_TEXT:]
    lowered = text.lower()
    if len(lowered) != len(text):  # a few characters change their length with their case: look at ASCII alone
        lowered = "".join(c.lower() if c.isascii() else c for c in text)
    end = max((at + len(marker) for marker in MARKERS if (at := lowered.rfind(marker)) >= 0), default=None)
    if end is not None:
        following = _lines(text[end:])
        if following:
            return following[0]
    lines = _lines(text)
    return lines[-1] if lines else None


def shown(text: str) -> str:
    """A text quoted for a reason, cut where it is long."""
    return repr(text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…")


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]
