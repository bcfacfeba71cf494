"""Report of an evaluation: tables for the terminal and for Markdown, and JSON with all that is needed to repeat it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from ramify.evaluation.budgets import Budget, Unit
from ramify.evaluation.summary import BudgetGain, Difference, Summary

Lines = list[list[str]]


def accuracy_table(summary: Summary, group: str, unit: Unit) -> Lines:
    """Tabulate right answers by method and budget, in percent with the interval, beside those of a perfect judge."""
    ladder = summary.ladder(unit)
    lines = [["method", *(b.label for b in ladder), *(f"any @{b}" for b in ladder)]]
    for method in summary.methods:
        figures = [summary.figure(group, method, budget) for budget in ladder]
        lines.append(
            [
                method,
                *(f.accuracy.percent() if f else "" for f in figures),
                *(f"{100 * f.any_correct.mean:.1f}" if f else "" for f in figures),
            ]
        )
    return lines


def cost_table(summary: Summary, group: str) -> Lines:
    """Tabulate the cost of a problem by method and budget. The last two columns are engine-seconds (`metering`)."""
    costs = ["tokens", "answers", "scored", "seconds", "slowest", "policy s", "value s"]
    lines = [["method", "budget", "problems", *costs]]
    for method in summary.methods:
        for budget in summary.budgets:
            if f := summary.figure(group, method, budget):
                seconds = (f.seconds, f.slowest, f.policy_seconds, f.value_seconds)
                lines.append(
                    [
                        method,
                        budget.label,
                        str(f.accuracy.n),
                        f"{f.tokens:.0f}",
                        f"{f.completions:.1f}",
                        f"{f.scored:.0f}",
                        *("" if s is None else f"{s:.2f}" for s in seconds),
                    ]
                )
    return lines


def difference_table(summary: Summary, group: str, unit: Unit) -> Lines:
    """Tabulate method minus baseline by budget, in points, paired by problem."""
    rows: dict[tuple[str, str], dict[Budget, Difference]] = {}
    for d in summary.differences:
        if d.group == group and d.budget.unit == unit:
            rows.setdefault((d.method, d.baseline), {})[d.budget] = d
    lines = [["method", "minus", *(b.label for b in summary.ladder(unit))]]
    for (method, baseline), row in sorted(rows.items(), key=lambda kv: summary.methods.index(kv[0][0])):
        cells = (row[b].estimate.percent(signed=True) if b in row else "" for b in summary.ladder(unit))
        lines.append([method, baseline, *cells])
    return lines


def step_table(summary: Summary, group: str, unit: Unit) -> Lines:
    """Tabulate the gain from each larger budget by method, in points, paired by problem."""
    rows: dict[str, list[BudgetGain]] = {}
    for s in summary.steps:
        if s.group == group and s.lower.unit == unit:
            rows.setdefault(s.method, []).append(s)
    lines = [["method", *(f"{a} → {b}" for a, b in itertools.pairwise(summary.ladder(unit)))]]
    lines += [[m, *(s.estimate.percent(signed=True) for s in steps)] for m, steps in rows.items()]
    return lines


def refused_table(summary: Summary) -> Lines:
    """Tabulate the problems that were refused, with the reasons."""
    return [
        ["problem", "refused"],
        *([str(i), reason.replace("|", "/")] for i, reason in sorted(summary.refused.items())),
    ]


def tables(summary: Summary) -> Iterator[tuple[str, Lines]]:
    """Yield every table under its title, the widest pools last."""
    for group in summary.groups:
        for unit in summary.units:
            yield from _comparisons(summary, group, unit)
        yield f"{group}: spent, a problem", cost_table(summary, group)


def _comparisons(summary: Summary, group: str, unit: Unit) -> Iterator[tuple[str, Lines]]:
    counts = [f.accuracy.n for f in summary.figures if f.group == group and f.budget.unit == unit]
    title = f"{group}: right answers at equal {unit}, % [95 %], {max(counts, default=0)} problems"
    yield title, accuracy_table(summary, group, unit)
    yield (
        f"{group}: difference at equal {unit}, points [95 %], paired",
        difference_table(summary, group, unit),
    )
    if len(summary.ladder(unit)) > 1:
        yield f"{group}: what more {unit} bring, points [95 %], paired", step_table(summary, group, unit)


def rich_tables(summary: Summary) -> RenderableType:
    """Return tables for a console: accuracy and differences of every group, the rest of the widest pool only."""
    shown = [
        rich_table(title, lines)
        for title, lines in tables(summary)
        if len(lines) > 1 and (title.startswith(f"{summary.groups[-1]}:") or "spent" not in title)
    ]
    return Group(*shown)


def rich_table(title: str, lines: Lines) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for i, name in enumerate(lines[0]):
        table.add_column(name, justify="left" if i == 0 or name == "minus" else "right", no_wrap=i == 0)
    for line in lines[1:]:
        table.add_row(*line)
    return table


def markdown_table(lines: Lines) -> str:
    head, *body = lines
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *body]) + "\n"


def markdown(summary: Summary, head: Mapping[str, Any]) -> str:
    """Return the report as one Markdown page: the settings of the run, then the tables."""
    parts = ["# Evaluation\n", f"`{head.get('command', 'ramify eval')}`\n"]
    parts += [f"- {key}: {_plain(value)}" for key, value in head.items() if key not in ("command", "methods")]
    parts.append("")
    if summary.refused:
        parts += ["## Not asked\n", markdown_table(refused_table(summary))]
    for title, lines in tables(summary):
        if len(lines) > 1:
            parts += [f"## {title}\n", markdown_table(lines)]
    return "\n".join(parts)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else f"`{json.dumps(value)}`"


def document(summary: Summary, head: Mapping[str, Any], problems: int) -> dict[str, Any]:
    """Return the report as JSON-ready values: configuration, machine, every figure with its interval."""
    return {**head, "problems_finished": problems, **asdict(summary)}


def write(folder: Path, summary: Summary, head: Mapping[str, Any], problems: int) -> None:
    """Write `results.json` and `results.md`."""
    text = json.dumps(document(summary, head, problems), indent=1)
    (folder / "results.json").write_text(text + "\n")
    (folder / "results.md").write_text(markdown(summary, head))
