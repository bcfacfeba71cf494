"""Grades a second and core of the tasks that grade in a sandbox.

    python scripts/sandbox_rate.py [ANSWERS] [TESTS]                  the task `code`: 50 answers of 10 tests
    python scripts/sandbox_rate.py reasoning-gym [ANSWERS] [NAME]     the task `reasoning-gym`: 200 answers to `gcd`

One grader is kept busy with different right answers. Counted is the processor time of all processes that it takes, so
that other work on the machine does not matter much; the seconds that pass stand beside it.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence

from ramify.rewards import Verifier, gym
from ramify.rewards.code import Code, sandbox
from ramify.rewards.datasets import load
from ramify.rewards.gym import ReasoningGym


def processor_seconds() -> float:
    """Return what this process and its ended children have used."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def grade_code(answers: str = "50", tests: str = "10") -> None:
    """Grade programs and print the rate."""
    cases = [{"input": f"{i} 7\n", "output": f"{i * 7}\n"} for i in range(int(tests))]
    code = Code.of({"hidden": cases})
    programs = [f"a, b = map(int, input().split())\nprint(a * b)  # {i}" for i in range(int(answers))]
    used, passed = grade([(code, program) for program in programs])
    show(f"{answers} answers of {tests} tests", int(answers), used, passed)


def grade_gym(answers: str = "200", name: str = "gcd") -> None:
    """Grade reference answers and print the rate without the start of the sandbox, which is printed apart."""
    examples = load(f"reasoning-gym:{name}?size={answers}")
    pairs = [(ReasoningGym.of(one.problem), str(one.problem["entry"]["answer"])) for one in examples]
    idle, starting = grade(pairs[:1])
    used, passed = grade(pairs)
    show(f"{answers} answers to {name}", len(pairs) - 1, used - idle, passed - starting)
    sys.stdout.write(
        f"a sandbox's start and one grade: {idle:.1f} s of processor time, {starting:.1f} s here and now\n"
    )


def grade(pairs: Sequence[tuple[Verifier, str]]) -> tuple[float, float]:
    """Grade right answers, from the start of the sandbox to its end; return the seconds, of processors and passed."""
    started, used = time.monotonic(), processor_seconds()
    for verifier, answer in pairs:
        if why := verifier.unusable():
            raise SystemExit(why)
        verdict = verifier.grade(answer)
        if verdict.outcome != 1:
            raise SystemExit(verdict.reason)
    sandbox().close()  # else its use does not count yet
    gym.close()
    return processor_seconds() - used, time.monotonic() - started


def show(what: str, answers: int, used: float, passed: float) -> None:
    """Print a rate."""
    sys.stdout.write(
        f"{what}: {1000 * used / answers:.1f} ms of processor time an answer,\n"
        f"{answers / used:.1f} grades a second and core; {answers / passed:.1f} a second here and now\n"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["reasoning-gym"]:
        grade_gym(*sys.argv[2:])
    else:
        grade_code(*sys.argv[1:])
