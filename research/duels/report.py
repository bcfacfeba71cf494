"""The table of a duel."""

from __future__ import annotations

from collections.abc import Sequence

from ramify.statistics import paired_difference
from research.duels.run import Row


def markdown(rows: Sequence[Row]) -> str:
    """Write a Markdown table: a line for each budget and arm, with the lead of the first arm over it in points."""
    lines = [
        "| budget | search | right | tokens | seconds | lead of the first, points [95 %] |",
        "|---|---|---|---|---|---|",
    ]
    for budget in dict.fromkeys(row.budget for row in rows):
        mine = [row for row in rows if row.budget == budget]
        arms = list(dict.fromkeys(row.arm for row in mine))
        first = {row.problem: row.right for row in mine if row.arm == arms[0]}
        for arm in arms:
            of_arm = [row for row in mine if row.arm == arm]
            right = {row.problem: row.right for row in of_arm}
            lead = "" if arm == arms[0] else paired_difference(first, right).percent(signed=True)
            lines.append(
                f"| {budget} | `{arm}` | {100 * _mean(list(right.values())):.1f} % "
                f"| {_mean([row.tokens for row in of_arm]):,.0f} "
                f"| {_mean([row.seconds for row in of_arm]):.2f} | {lead} |"
            )
    return "\n".join(lines)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
