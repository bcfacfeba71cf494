"""The tasks that judge in this process: `countdown`, `exact` and `none`. None of them evaluates an answer's
text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ramify.rewards import countdown
from ramify.rewards.answer_text import BOX, bare, final, marked, scope
from ramify.rewards.errors import NoVerifier
from ramify.rewards.schemas import CountdownProblem, ExactProblem
from ramify.search.records import Verdict

MAX_TEXT = 20_000
"""Characters of an answer that `exact` looks at, counted from its end."""
MAX_SHOWN = 100
"""Characters of an answer that a reason repeats."""

EXPLAINED = re.compile(
    r"(?:,? because\b|, (?:since|which|as)\b|\.\s+(?:It|This|That|The|I|Because|Since|So)\b)(?!.*\bor\b).*",
    re.DOTALL,
)
"""An explanation that may follow an answer on its line; none if it holds an *or*."""


class CountdownTask:
    """Countdown: the final answer is the canonical expression."""

    def __init__(self, problem: CountdownProblem) -> None:
        self._problem = {"numbers": list(problem.numbers), "target": problem.target}

    async def finals(self, texts: Sequence[str]) -> list[str | None]:
        """The canonical expression of each answer; `None` where a text is no complete calculation."""
        return [countdown.final_answer(text) for text in texts]

    async def grade(self, text: str) -> Verdict:
        """1 where every line is right, every number is used once and the last result is the target."""
        return countdown.grade(self._problem, text)


class ExactTask:
    """One right answer, compared as text, whole: a hedge (`Paris or London`) is another answer. See `bare`; case
    counts unless the problem says `ignore_case`."""

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
        return None if line is None else self._normal(line) or None

    def _normal(self, line: str) -> str:
        line = bare(line)
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
    """The line of a text that holds its answer; `None` if there is none.

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
    """A text quoted for a reason, cut where it is long."""
    return repr(text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…")
