"""Rows to figures: accuracy with its interval for each group, method and budget, and the differences that matter."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ramify.evaluation.budgets import UNITS, Budget, Unit
from ramify.evaluation.rows import Row
from ramify.statistics import Estimate, bootstrap, paired_difference

ALL = "all"

Cell = tuple[str, Budget]
"""A method and a budget."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One method at one budget on one group of problems; costs are means over problems."""

    group: str
    method: str
    budget: Budget
    accuracy: Estimate
    any_correct: Estimate
    completions: float
    tokens: float
    """Spent, not allowed."""
    scored: float
    seconds: float | None
    """Duration of the search; `None` if only longer searches were read off."""
    slowest: float | None
    """Seconds of the longest search."""
    policy_seconds: float | None
    """Engine-seconds of the policy; `None` if they were not told."""
    value_seconds: float | None
    """Engine-seconds of the value model; `None` likewise."""
    ungraded: int
    """Answers that the verifier failed to judge, in total."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The lead of one method over another in right answers, on the same problems."""

    group: str
    budget: Budget
    method: str
    baseline: str
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class BudgetGain:
    """The gain of one method from more tokens, or from more seconds, on the same problems."""

    group: str
    method: str
    lower: Budget
    higher: Budget
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything that the report prints."""

    groups: list[str]
    methods: list[str]
    budgets: list[Budget]
    figures: list[Figure]
    differences: list[Difference]
    steps: list[BudgetGain]
    refused: dict[int, str]
    """Problems that were not asked, by index, and why. They are in no figure."""

    @property
    def units(self) -> list[Unit]:
        """The units of the budgets."""
        return [unit for unit in UNITS if self.ladder(unit)]

    def ladder(self, unit: Unit) -> list[Budget]:
        """Return the budgets of one unit, rising."""
        return [budget for budget in self.budgets if budget.unit == unit]

    def figure(self, group: str, method: str, budget: Budget) -> Figure | None:
        return next(
            (f for f in self.figures if (f.group, f.method, f.budget) == (group, method, budget)), None
        )


def summarise(
    rows: Sequence[Row],
    methods: Sequence[str],
    baselines: Sequence[str],
    pools: Sequence[Sequence[str]] = (),
    seed: int = 0,
) -> Summary:
    """Return figures by group, by each pool of groups, and over all.

    `methods` fixes the order; baselines that were not run are left out. Every other method is compared with each of
    them (the baselines with one another, if nothing else was run) on the problems that both have finished.
    """
    refused = {row.problem: row.refused for row in rows if row.refused is not None}
    rows = [row for row in rows if row.problem not in refused]
    budgets = sorted({row.budget for row in rows})
    sets = _groups(rows, pools)
    cells = {name: _cells(rows, groups) for name, groups in sets.items()}
    run = [m for m in methods if any(row.method == m for row in rows)]
    against = [b for b in baselines if b in run]
    figures = [
        _figure(name, method, budget, cells[name][method, budget], seed)
        for name in sets
        for method in run
        for budget in budgets
        if (method, budget) in cells[name]
    ]
    compared = [m for m in run if m not in against] or run
    differences = [
        d for name in sets for d in _differences(name, cells[name], compared, against, budgets, seed)
    ]
    gains = [g for name in sets for g in _gains(name, cells[name], run, budgets, seed)]
    return Summary(list(sets), run, budgets, figures, differences, gains, refused)


def _differences(
    group: str,
    cells: Mapping[Cell, Mapping[str, Row]],
    methods: Sequence[str],
    baselines: Sequence[str],
    budgets: Sequence[Budget],
    seed: int,
) -> list[Difference]:
    return [
        Difference(group, budget, method, baseline, estimate)
        for budget in budgets
        for method in methods
        for baseline in baselines
        if method != baseline
        and (estimate := _paired(cells, (method, budget), (baseline, budget), seed)) is not None
    ]


def _gains(
    group: str,
    cells: Mapping[Cell, Mapping[str, Row]],
    methods: Sequence[str],
    budgets: Sequence[Budget],
    seed: int,
) -> list[BudgetGain]:
    return [
        BudgetGain(group, method, lower, higher, estimate)
        for method in methods
        for lower, higher in itertools.pairwise(budgets)
        if lower.unit == higher.unit
        and (estimate := _paired(cells, (method, higher), (method, lower), seed)) is not None
    ]


def _groups(rows: Sequence[Row], pools: Sequence[Sequence[str]]) -> dict[str, set[str]]:
    """Map a name to the groups in it: each group by itself, the pools, and all if that is something new."""
    labels = sorted({row.group for row in rows})
    sets = {label: {label} for label in labels}
    for pool in pools:
        if len(members := {label for label in labels if label in pool}) > 1:
            sets[" + ".join(sorted(members))] = members
    if len(labels) > 1 and set(labels) not in sets.values():
        sets[ALL] = set(labels)
    return sets


def _cells(rows: Sequence[Row], groups: set[str]) -> dict[Cell, dict[str, Row]]:
    cells: dict[Cell, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        if row.group in groups:
            cells[row.method, row.budget][str(row.problem)] = row
    return dict(cells)


def _figure(group: str, method: str, budget: Budget, cell: Mapping[str, Row], seed: int) -> Figure:
    rows = list(cell.values())
    seconds = [row.seconds for row in rows if row.seconds is not None]
    policy = [row.policy_seconds for row in rows if row.policy_seconds is not None]
    value = [row.value_seconds for row in rows if row.value_seconds is not None]
    return Figure(
        group=group,
        method=method,
        budget=budget,
        accuracy=bootstrap([row.correct for row in rows], seed),
        any_correct=bootstrap([row.any_correct for row in rows], seed),
        completions=_mean([row.completions for row in rows]),
        tokens=_mean([row.tokens for row in rows]),
        scored=_mean([row.scored for row in rows]),
        seconds=_mean(seconds) if seconds else None,
        slowest=max(seconds, default=None),
        policy_seconds=_mean(policy) if policy else None,
        value_seconds=_mean(value) if value else None,
        ungraded=sum(row.ungraded for row in rows),
    )


def _paired(cells: Mapping[Cell, Mapping[str, Row]], ours: Cell, theirs: Cell, seed: int) -> Estimate | None:
    if ours not in cells or theirs not in cells or not cells[ours].keys() & cells[theirs].keys():
        return None
    mine, other = ({key: float(row.correct) for key, row in cells[cell].items()} for cell in (ours, theirs))
    return paired_difference(mine, other, seed)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
