"""Compare two evaluations of the same problems, such as those of a release and of its parent.

One table in Markdown: method by method the second less the first, paired by problem, in points with 95 % bootstrap
intervals over problems.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from ramify.evaluation.budgets import Budget
from ramify.evaluation.rows import Row, read_rows
from ramify.statistics import paired_difference

PROBLEMS = ("data", "problems", "data_seed")
"""Settings that must be the same for rows to be of the same problems."""


def main(first: Path, second: Path) -> Iterator[str]:
    """Yield the lines of the table. Raises `SystemExit` if the two are not of the same problems."""
    (one, theirs), (other, ours) = read_rows(first), read_rows(second)
    for key in PROBLEMS:
        if one[key] != other[key]:
            raise SystemExit(f"{key}: {one[key]!r} in {first}, {other[key]!r} in {second}")
    yield "| method | budget | first | second | difference, points [95 %] |"
    yield "|---|---:|---:|---:|---|"
    known = _scores(theirs)
    for (method, budget), scores in _scores(ours).items():
        before = known.get((method, budget))
        if before is not None:
            yield f"| {method} | {budget} | {_compared(before, scores)} |"


def _scores(rows: list[Row]) -> dict[tuple[str, Budget], dict[str, float]]:
    """By method and budget, then by problem; 1 is right."""
    scores: dict[tuple[str, Budget], dict[str, float]] = {}
    for row in rows:
        if row.refused is not None:
            continue
        scores.setdefault((row.method, row.budget), {})[str(row.problem)] = float(row.correct)
    return dict(sorted(scores.items()))


def _compared(before: dict[str, float], after: dict[str, float]) -> str:
    gain = paired_difference(after, before)
    percent = " | ".join(f"{100 * sum(s.values()) / len(s):.1f}" for s in (before, after))
    return f"{percent} | {gain.percent(signed=True)}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=Path, help="a folder that `ramify eval --out` has filled")
    parser.add_argument("second", type=Path, help="another")
    folders = parser.parse_args()
    sys.stdout.writelines(f"{line}\n" for line in main(folders.first, folders.second))
