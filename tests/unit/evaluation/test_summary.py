import json
from dataclasses import replace

import pytest
from rich.console import Console

from fakes_evaluation import seconds, tokens
from ramify.evaluation.plot import plot
from ramify.evaluation.report import document, markdown, rich_tables, write
from ramify.evaluation.rows import Row
from ramify.evaluation.summary import summarise

BASE = Row(
    problem=0,
    group="4",
    method="flat",
    budget=tokens(100),
    correct=False,
    any_correct=True,
    final="x",
    value=0.5,
    completions=4,
    tokens=90,
    scored=4,
    simulations=4,
    seconds=None,
)


def rows() -> list[Row]:
    """Eight problems in two groups; `tree` is right wherever `flat` is, and on two more at the larger budget."""
    found = []
    for i in range(8):
        row = replace(BASE, problem=i, group="4" if i < 4 else "5")
        for budget in (100, 200):
            right = i % 4 == 0
            found.append(replace(row, budget=tokens(budget), correct=right))
            found.append(
                replace(
                    row,
                    method="tree",
                    budget=tokens(budget),
                    correct=right or (budget == 200 and i % 4 == 1),
                    tokens=budget,
                )
            )
    return found


def test_accuracy_is_by_group_and_over_all():
    summary = summarise(rows(), ["flat", "tree"], ["flat"])
    assert summary.groups == ["4", "5", "all"]
    assert summary.figure("4", "flat", tokens(100)).accuracy.mean == 0.25
    assert summary.figure("4", "tree", tokens(200)).accuracy.mean == 0.5
    assert summary.figure("all", "tree", tokens(200)).accuracy.n == 8
    assert summary.figure("all", "flat", tokens(100)).any_correct.mean == 1.0
    assert summary.figure("all", "tree", tokens(200)).tokens == 200


def test_pools_are_reported_beside_the_groups():
    mixed = [*rows(), *(replace(r, group="6", problem=r.problem + 8) for r in rows() if r.group == "5")]
    summary = summarise(mixed, ["flat", "tree"], [], pools=[["5", "6"]])
    assert summary.groups == ["4", "5", "6", "5 + 6", "all"]
    assert summary.figure("5 + 6", "tree", tokens(200)).accuracy.n == 8


def test_a_pool_of_all_groups_is_not_said_twice():
    assert summarise(rows(), ["flat", "tree"], [], pools=[["4", "5"]]).groups == ["4", "5", "4 + 5"]


def test_every_method_is_compared_with_every_baseline_but_itself():
    summary = summarise(rows(), ["flat", "tree"], ["flat", "never run"])
    assert {(d.method, d.baseline) for d in summary.differences} == {("tree", "flat")}
    found = {(d.group, d.budget): d.estimate.mean for d in summary.differences}
    assert found["all", tokens(100)] == 0
    assert found["all", tokens(200)] == 0.25


def test_what_more_tokens_bring_is_paired_too():
    steps = {(s.group, s.method): s.estimate.mean for s in summarise(rows(), ["flat", "tree"], []).steps}
    assert steps["all", "tree"] == 0.25
    assert steps["all", "flat"] == 0


def test_the_order_in_which_rows_land_changes_nothing():
    assert summarise(rows(), ["flat", "tree"], ["flat"]) == summarise(
        rows()[::-1], ["flat", "tree"], ["flat"]
    )


def test_the_report_says_the_same_in_every_form(tmp_path):
    summary = summarise(rows(), ["flat", "tree"], ["flat"])
    head = {"command": "ramify eval", "seed": 0, "data": "countdown:test"}
    write(tmp_path, summary, head, 8)
    assert json.loads((tmp_path / "results.json").read_text()) == document(summary, head, 8)
    console = Console(width=200, record=True, file=(tmp_path / "console.txt").open("w"))
    console.print(rich_tables(summary))
    shown = console.export_text()
    console.file.close()
    assert "+25.0" in shown
    assert "+25.0" in markdown(summary, head)
    assert "all: right answers" in shown


def test_the_plot_is_written_twice_and_the_same_rows_draw_the_same_picture(tmp_path):
    summary = summarise(rows(), ["flat", "tree"], ["flat"])
    paths = plot(summary, tmp_path)
    assert [p.name for p in paths] == ["accuracy.png", "accuracy.svg"]
    first = paths[1].read_bytes()
    plot(summary, tmp_path)
    assert paths[1].read_bytes() == first
    assert b"tree" in first


def clocked() -> list[Row]:
    """The same at a tenth of a second for each ten tokens."""
    return [
        replace(
            row, budget=seconds(row.budget.amount / 100), seconds=1.01, policy_seconds=0.3, value_seconds=0.1
        )
        for row in rows()
    ]


def test_seconds_are_compared_with_seconds_and_tokens_with_tokens():
    summary = summarise([*rows(), *clocked()], ["flat", "tree"], ["flat"])
    assert summary.units == ["tokens", "seconds"]
    assert summary.ladder("seconds") == [seconds(1), seconds(2)]
    assert {(s.lower.unit, s.higher.unit) for s in summary.steps} == {
        ("tokens", "tokens"),
        ("seconds", "seconds"),
    }
    found = {(d.group, d.budget): d.estimate.mean for d in summary.differences}
    assert found["all", seconds(2)] == found["all", tokens(200)] == 0.25
    figure = summary.figure("all", "tree", seconds(2))
    assert (figure.seconds, figure.slowest) == (1.01, 1.01)
    assert (figure.policy_seconds, figure.value_seconds) == pytest.approx((0.3, 0.1))


def test_both_units_are_reported_and_drawn(tmp_path):
    summary = summarise([*rows(), *clocked()], ["flat", "tree"], ["flat"])
    page = markdown(summary, {})
    assert "all: right answers at equal tokens" in page
    assert "all: right answers at equal seconds" in page
    assert "| tree | 2 s | 8 | 200 | 4.0 | 4 | 1.01 | 1.01 | 0.30 | 0.10 |" in page
    assert "| tree | 200 tokens | 8 | 200 | 4.0 | 4 |  |  |  |  |" in page
    plot(summary, tmp_path)
    drawn = (tmp_path / "accuracy.svg").read_text()
    assert "seconds spent" in drawn
    assert "tokens spent" in drawn
