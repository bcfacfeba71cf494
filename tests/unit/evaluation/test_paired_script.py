"""`scripts/paired.py`: two evaluations against each other, as the docs' tables have it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ramify.evaluation.budgets import Budget
from ramify.evaluation.rows import Row, RowFile

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "paired.py"
HEAD = {"data": "countdown:test", "problems": 4, "data_seed": 0}


def evaluated(folder: Path, right: set[int], **head: object) -> Path:
    """An evaluation of four problems with one method."""
    file = RowFile(folder, {**HEAD, **head}, resume=False)
    file.add(
        Row(
            i,
            "4 numbers",
            "mcts",
            Budget("tokens", 100),
            i in right,
            i in right,
            None,
            None,
            1,
            90,
            1,
            1,
            None,
        )
        for i in range(4)
    )
    file.close()
    return folder


def said(*arguments: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_difference_is_the_seconds_less_the_firsts_problem_by_problem(tmp_path: Path) -> None:
    first, second = evaluated(tmp_path / "a", {0}), evaluated(tmp_path / "b", {0, 1, 2, 3})
    row = said(first, second).stdout.splitlines()[2]
    assert row.startswith("| mcts | 100 | 25.0 | 100.0 | +75.0 [")
    assert said(first, first).stdout.splitlines()[2].endswith("| +0.0 [+0.0, +0.0] |")


def test_evaluations_of_other_problems_are_not_compared(tmp_path: Path) -> None:
    first, second = evaluated(tmp_path / "a", {0}), evaluated(tmp_path / "b", {0}, data_seed=1)
    refused = said(first, second)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("data_seed: 0 in ")
