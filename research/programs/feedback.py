"""Say what the task `code` says of a program of the language, computed here: a test holds it against the sandbox."""

from __future__ import annotations

from ramify.rewards.code import MAX_FAILURES
from research.programs.language import Program, read, run
from research.programs.problems import Problem


def grade(problem: Problem, body: str) -> float:
    """Return 1 if a text's program passes the hidden tests, else 0."""
    program = read(body)
    return float(program is not None and _passes(problem, program, problem.hidden))


def feedback(problem: Problem, body: str) -> str | None:
    """Return what is said of a text without a verdict on it; None if its program cannot be run on every public test."""
    program = read(body)
    if program is None:
        return None
    got = [run(program, *given) for given in problem.public]
    failures = []
    for i, ((x, y), result) in enumerate(zip(problem.public, got, strict=True), 1):
        if result is None:
            return None
        expected = problem.function(x, y)
        if result != expected:
            failures.append(
                f"Public test {i} of {len(problem.public)} fails.\n"
                f"Call: f({x}, {y})\nExpected: {expected}\nGot: {result}"
            )
    return "\n\n".join(failures[:MAX_FAILURES]) or f"All {len(problem.public)} public tests pass."


def _passes(problem: Problem, program: Program, inputs: tuple[tuple[int, int], ...]) -> bool:
    return all(run(program, *given) == problem.function(*given) for given in inputs)
