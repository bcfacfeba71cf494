from dataclasses import replace

import pytest

from ramify.evaluation.budgets import Budget
from ramify.evaluation.rows import Row, RowFile, read_rows

ROW = Row(
    problem=3,
    group="4",
    method="mcts",
    budget=Budget("tokens", 300),
    correct=True,
    any_correct=True,
    final="4 * 6",
    value=0.9,
    completions=7,
    tokens=290,
    scored=41,
    simulations=7,
    seconds=0.5,
)
HEAD = {"seed": 1, "methods": [{"name": "mcts", "search": {"kappa": 2.0}}], "budgets": (300,)}


def test_rows_survive_the_disk(tmp_path):
    file = RowFile(tmp_path, HEAD, resume=False)
    file.add([ROW, replace(ROW, problem=4, budget=Budget("seconds", 0.5), policy_seconds=0.2)])
    file.close()
    head, rows = read_rows(tmp_path)
    assert head["seed"] == 1
    assert rows == [ROW, replace(ROW, problem=4, budget=Budget("seconds", 0.5), policy_seconds=0.2)]


def test_a_torn_last_line_is_dropped_and_the_run_goes_on(tmp_path):
    file = RowFile(tmp_path, HEAD, resume=False)
    file.add([ROW])
    file.close()
    with file.path.open("a") as torn:
        torn.write('{"problem": 9, "gro')
    again = RowFile(tmp_path, HEAD, resume=True)
    assert again.rows == [ROW]
    again.add([replace(ROW, problem=5)])
    again.close()
    assert [row.problem for row in read_rows(tmp_path)[1]] == [3, 5]


def test_a_run_stopped_before_its_first_row_goes_on(tmp_path):
    RowFile(tmp_path, HEAD, resume=False).close()
    again = RowFile(tmp_path, HEAD, resume=True)
    again.close()
    assert again.rows == []


def test_results_are_never_overwritten_unasked(tmp_path):
    RowFile(tmp_path, HEAD, resume=False).close()
    with pytest.raises(FileExistsError, match="--resume"):
        RowFile(tmp_path, HEAD, resume=False)


def test_another_configuration_cannot_go_on_with_the_same_rows(tmp_path):
    RowFile(tmp_path, HEAD, resume=False).close()
    with pytest.raises(FileExistsError, match=r"seed differ"):
        RowFile(tmp_path, {**HEAD, "seed": 2}, resume=True)
