"""Say what the task `code` says of a program of the language, computed here: a test holds it against the sandbox."""

from __future__ import annotations

from ramify.rewards.code import MAX_FAILURES
from research.programs.language import HIDDEN, PUBLIC, read, run
from research.programs.problems import Problem


def grade(problem: Problem, body: str) -> float:
    """Return 1 if a text's program passes the hidden tests, else 0."""
    program = read(body)
    return float(program is not None and all(run(program, x) == problem.results[x] for x in HIDDEN))


def feedback(problem: Problem, body: str) -> str | None:
    """Return what is said of a text without a verdict on it; None if its program cannot be run on every public test."""
    program = read(body)
    if program is None:
        return None
    failures = []
    for i, x in enumerate(PUBLIC, 1):
        result, expected = run(program, x), problem.results[x]
        if result is None:
            return None
        if result != expected:
            failures.append(
                f"Public test {i} of {len(PUBLIC)} fails.\nCall: f({x})\nExpected: {expected}\nGot: {result}"
            )
    return "\n\n".join(failures[:MAX_FAILURES]) or f"All {len(PUBLIC)} public tests pass."
