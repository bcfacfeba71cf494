"""Small programs (`research.programs`): what the trainer computes of a text is what the sandbox finds."""

from __future__ import annotations

import random

import pytest

from ramify.rewards.code import Code
from research.programs.feedback import feedback, grade
from research.programs.language import text
from research.programs.problems import Problem, problems
from research.programs.texts import mutated

SAMPLES = 200


@pytest.fixture(scope="module")
def samples() -> list[tuple[Problem, str]]:
    """Programs that are right, wrong, that raise, and texts that are none."""
    rng = random.Random(0)
    made = []
    for i, problem in enumerate(problems("dev", SAMPLES, 0)):
        program = problem.program
        whole = text(program)
        made.append(
            (
                problem,
                [
                    whole,
                    text(mutated(program, rng)),
                    text(mutated(mutated(program, rng), rng)),
                    text(mutated(program, rng)),
                    whole.replace("return", "return c +", 1) if i % 2 else whole.replace(" x", " c"),
                    whole.partition("\n")[0] if i % 2 else f"{whole}\n{whole}",
                ][i % 6],
            )
        )
    return made


@pytest.mark.timeout(600)
def test_the_interpreter_agrees_with_the_sandbox(samples: list[tuple[Problem, str]]) -> None:
    outcomes = []
    for problem, body in samples:
        task = Code.of(problem.row["problem"])
        outcomes.append(task.grade(body).outcome)
        assert grade(problem, body) == outcomes[-1], body
        said = feedback(problem, body)
        if said is not None:
            assert task.feedback(body, None) == said
    assert 20 < sum(outcomes) < SAMPLES - 20
