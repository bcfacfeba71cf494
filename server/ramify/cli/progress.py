"""Progress: searches with the running accuracies, and trials with the best so far; plain lines without a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from ramify.cli.terminal import errors
from ramify.evaluation.runner import Tally

if TYPE_CHECKING:
    from ramify.evaluation.budgets import Budget
    from ramify.evaluation.methods import Method
    from ramify.evaluation.rows import Row
    from ramify.tuning.study import Ended

TENTHS = 10


class Watch:
    """Shows how far a run has come and how the methods stand."""

    def __init__(self, jobs: int, methods: Sequence[Method], budgets: Sequence[Budget]) -> None:
        self._jobs, self._done = jobs, 0
        self._methods = [m.name for m in methods]
        self._budgets = budgets
        self._tally = Tally()
        self._bar = Progress(
            TextColumn("searches"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=errors,
        )
        self._task = self._bar.add_task("searches", total=jobs)
        self._live = Live(console=errors, get_renderable=self._render, refresh_per_second=4, transient=True)

    def add(self, rows: Sequence[Row], jobs: int = 1) -> None:
        self._tally.add(rows)
        self._done += jobs
        self._bar.advance(self._task, jobs)
        if (
            not errors.is_terminal
            and jobs
            and self._done * TENTHS // self._jobs > (self._done - jobs) * TENTHS // self._jobs
        ):
            errors.print(
                f"{self._done}/{self._jobs} searches: {self._line()}", soft_wrap=True, highlight=False
            )

    def __enter__(self) -> Self:
        if errors.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if errors.is_terminal:
            self._live.stop()

    def _line(self) -> str:
        accuracies = self._tally.accuracies()
        parts = []
        for method in self._methods:
            cells = [accuracies.get((method, budget)) for budget in self._budgets]
            parts.append(f"{method} " + "/".join("–" if a is None else f"{100 * a:.1f}" for a in cells))
        return ", ".join(parts)

    def _render(self) -> Group:
        accuracies, seen = self._tally.accuracies(), self._tally.seen
        table = Table("right so far, %", *(f"@{b}" for b in self._budgets), "searched", box=None)
        for method in self._methods:
            cells = [accuracies.get((method, b)) for b in self._budgets]
            most = max((seen.get((method, b), 0) for b in self._budgets), default=0)
            table.add_row(method, *("–" if a is None else f"{100 * a:.1f}" for a in cells), str(most))
        return Group(self._bar, table)


class TrialWatch:
    """Shows how far a run of trials has come, and the best of the study at hand."""

    def __init__(self, trials: int) -> None:
        """trials: of all studies."""
        self._bar = Progress(
            TextColumn("trials"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=errors,
            transient=True,
            disable=not errors.is_terminal,
        )
        self._task = self._bar.add_task("", total=trials)

    def skip(self, trials: int) -> None:
        """Count trials that were there before."""
        self._bar.advance(self._task, trials)

    def ended(self, told: Ended) -> None:
        """Tell of a trial."""
        line = f"{told.study}, trial {told.trial}: {100 * told.right:.1f} % of {told.problems} right"
        line += ", given up" if told.pruned else ""
        line += f"; the best, trial {told.best}: {100 * told.best_right:.1f} %"
        self._bar.update(self._task, advance=1, description=line)
        if not errors.is_terminal:
            errors.print(line, soft_wrap=True, highlight=False)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
