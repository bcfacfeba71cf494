"""Results on disk, as they come: one JSON line for each (problem, method, budget), below the settings of the run.

A run that was stopped anywhere can go on: a torn last line is dropped, and a problem's lines are written together.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any

from ramify.evaluation.budgets import Budget

NAME = "rows.ndjson"


@dataclass(frozen=True, slots=True)
class Row:
    """The answer of one method to one problem within one budget, and its cost."""

    problem: int
    """Index in the data set."""
    group: str
    """The part of the results that it counts in; for Countdown the number of numbers."""
    method: str
    budget: Budget
    """The most that the search might spend."""
    correct: bool
    """True if the task's verifier, asked after the search, accepts the answer; no answer is wrong."""
    any_correct: bool
    """True if any complete answer drawn within the budget was right: the score of a perfect judge."""
    final: str | None
    """The answer in the task's canonical form."""
    value: float | None
    """The outcome model's estimate of it."""
    completions: int
    """Complete answers drawn within the budget."""
    tokens: int
    """Generated tokens spent."""
    scored: int
    """Sequences that the value model judged."""
    simulations: int
    seconds: float | None
    """Duration of the search, among the others at its side; `None` if a longer search was read off."""
    refused: str | None = None
    """The reason for which the problem was not asked; no figure counts such a row. `None`: it was asked."""
    ungraded: int = 0
    """Answers of the tree that the verifier failed to judge: a crash or a deadline. They count as wrong."""
    policy_seconds: float | None = None
    """Engine-seconds of the policy (`metering`); `None` if a longer search was read off, and from a server."""
    value_seconds: float | None = None
    """Engine-seconds of the value model; `None` likewise."""


MAX_REASON = 300
"""Characters of a refusal that a row keeps."""


def refused_row(problem: int, group: str, method: str, budget: Budget, reason: str) -> Row:
    """Return the row of a problem that was not asked."""
    return Row(
        problem=problem,
        group=group,
        method=method,
        budget=budget,
        correct=False,
        any_correct=False,
        final=None,
        value=None,
        completions=0,
        tokens=0,
        scored=0,
        simulations=0,
        seconds=None,
        refused=reason[:MAX_REASON],
    )


class RowFile:
    """`rows.ndjson` of one run, opened for more."""

    def __init__(self, folder: Path, head: Mapping[str, Any], *, resume: bool) -> None:
        """Raise `FileExistsError` if there are rows and `resume` is false, or their head is another."""
        self.path = folder / NAME
        self.rows: list[Row] = []
        folder.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            if not resume:
                raise FileExistsError(
                    f"{self.path} has results: --resume goes on with them, --out DIR starts elsewhere"
                )
            self._read(head)
        else:
            self.path.write_text(json.dumps(dict(head)) + "\n")
        self._file: IO[str] = self.path.open("a")

    def _read(self, head: Mapping[str, Any]) -> None:
        whole, _, _ = self.path.read_text().rpartition("\n")
        first, *lines = whole.split("\n")
        if first and json.loads(first) != json.loads(json.dumps(dict(head))):
            changed = sorted(
                k for k, v in dict(head).items() if json.loads(first).get(k) != json.loads(json.dumps(v))
            )
            raise FileExistsError(
                f"{self.path} is of another run ({', '.join(changed)} differ): use another --out"
            )
        self.rows = [row_from_dict(json.loads(line)) for line in lines]
        self.path.write_text("".join(f"{line}\n" for line in [first or json.dumps(dict(head)), *lines]))

    def add(self, rows: Iterable[Row]) -> None:
        """Write the rows of one search together."""
        new = list(rows)
        self.rows.extend(new)
        self._file.write("".join(json.dumps(asdict(row)) + "\n" for row in new))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def row_from_dict(data: Mapping[str, Any]) -> Row:
    """Read a row. Raises `ValueError` for a mapping that is none."""
    names = {f.name for f in fields(Row)}
    if set(data) != names:
        raise ValueError(f"not a row: {sorted(set(data) ^ names)}")
    return Row(**{**data, "budget": Budget(**data["budget"])})


def read_rows(folder: Path) -> tuple[dict[str, Any], list[Row]]:
    """Return the head and the rows of a finished or stopped run."""
    first, *lines = (folder / NAME).read_text().rpartition("\n")[0].split("\n")
    return json.loads(first), [row_from_dict(json.loads(line)) for line in lines]
