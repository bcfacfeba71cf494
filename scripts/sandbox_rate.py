"""Grades a second and core of the task `code`: python scripts/sandbox_rate.py [ANSWERS] [TESTS].

One grader is kept busy with different right answers. Counted is the processor time of all processes that it takes, so
that other work on the machine does not matter much; the seconds that pass stand beside it.
"""

from __future__ import annotations

import resource
import sys
import time

from ramify.rewards.code import Code


def processor_seconds() -> float:
    """Return what this process and its ended children have used."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main(answers: int, tests: int) -> None:
    """Grade and print the rate."""
    cases = [{"input": f"{i} 7\n", "output": f"{i * 7}\n"} for i in range(tests)]
    code = Code.of({"hidden": cases})
    if why := code.unusable():
        raise SystemExit(why)
    started, used = time.monotonic(), processor_seconds()
    for i in range(answers):
        verdict = code.grade(f"a, b = map(int, input().split())\nprint(a * b)  # {i}")
        if verdict.outcome != 1:
            raise SystemExit(verdict.reason)
    used, passed = processor_seconds() - used, time.monotonic() - started
    sys.stdout.write(
        f"{answers} answers of {tests} tests: {1000 * used / answers:.1f} ms of processor time an answer,\n"
        f"{answers / used:.1f} grades a second and core; {answers / passed:.1f} a second here and now\n"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:] or ("50", "10")))
