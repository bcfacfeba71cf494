"""The tasks that judge in this process."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from ramify.rewards import registry
from ramify.search.protocols import GradingFailed

pytestmark = pytest.mark.anyio

CASES = json.loads((Path(__file__).parent / "exact_cases.json").read_text())
COUNTDOWN = {"numbers": [3, 5, 7, 8], "target": 24}


async def test_countdown_grades_by_its_own_rules() -> None:
    task = registry.task("countdown", {"numbers": [8, 3], "target": 24})
    assert (await task.grade("8 * 3 = 24\n")).outcome == 1.0
    wrong = await task.grade("8 + 3 = 11\n")
    assert (wrong.outcome, wrong.reason) == (0.0, "the result is 11, not 24")


async def test_countdown_answers_that_are_the_same_expression_vote_together() -> None:
    task = registry.task("countdown", COUNTDOWN)
    texts = ("8 + 3 = 11\n11 + 5 = 16", "5 + 3 = 8\n8 + 8 = 16", "hello")
    first, second, broken = [await task.final(text) for text in texts]
    assert first == second is not None
    assert broken is None


@pytest.mark.parametrize(
    ("text", "final"),
    [
        ("Paris", "Paris"),
        ("I think so.\n  Paris \n\n", "Paris"),
        ("Answer: Paris", "Paris"),
        ("ANSWER:   the\t Big   Apple  ", "the Big Apple"),
        ("Answer: Rome\nNo.\nAnswer: Paris\nI am sure.", "Paris"),
        ("because …\n#### 42\n", "42"),
        ("#### 41\nAnswer: 42", "42"),
        ("Answer:\n\n  Paris\nbye", "Paris"),
        ("It is Paris\nAnswer:", None),
        ("cafe\u0301", "café"),
        ("İİİ answer: İstanbul", "İstanbul"),
        ("x" * 1_000_000 + "\nAnswer: 7", "7"),
        ("", None),
        (" \n\t\n", None),
    ],
)
async def test_exact_takes_the_last_box_or_what_follows_the_last_marker_or_else_the_last_line(
    text: str, final: str | None
) -> None:
    assert await registry.task("exact", {"answer": "x"}).final(text) == final


async def test_exact_compares_text_and_nothing_else() -> None:
    task = registry.task("exact", {"answer": " 1/2"})
    assert (await task.grade("so\nAnswer: 1/2")).outcome == 1.0
    assert (await task.grade("0.5")).outcome == 0.0
    assert (await task.grade("1/2.")).outcome == 1.0
    assert (await task.grade(" ")).reason == "the text holds no answer"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["text"])
async def test_exact_takes_an_answer_as_people_end_it_and_never_a_hedge(case: Mapping[str, str]) -> None:
    task = registry.task("exact", {"answer": case["reference"]})
    assert (await task.grade(case["text"])).outcome == float(case["right"]), case["source"]


async def test_answers_that_exact_takes_for_one_vote_together() -> None:
    task = registry.task("exact", {"answer": "x"})
    right = [case["text"] for case in CASES if case["right"] and case["reference"] == "Paris"]
    assert {await task.final(text) for text in right} == {"Paris"}


async def test_exact_ignores_case_only_where_asked() -> None:
    strict = registry.task("exact", {"answer": "Straße"})
    lenient = registry.task("exact", {"answer": "Straße", "ignore_case": True})
    assert (await strict.grade("STRASSE")).outcome == 0.0
    assert (await lenient.grade("STRASSE")).outcome == 1.0
    assert await lenient.final("Yes") == await lenient.final("YES") == "yes"


@pytest.mark.parametrize(
    "text",
    ["x" + "\n" * 19_990 + "y", "Answer: x" + " " * 19_990 + "y", "<answer>" * 2_500, "</s> " * 4_000],
    ids=["blank lines", "blanks", "elements never closed", "end tokens"],
)
async def test_exact_reads_an_endless_text_in_time_since_it_does_so_on_the_event_loop(text: str) -> None:
    task, began = registry.task("exact", {"answer": "x"}), time.process_time()
    await task.grade(text)
    assert time.process_time() - began < 0.25


async def test_a_reason_does_not_repeat_megabytes_of_answer() -> None:
    verdict = await registry.task("exact", {"answer": "1"}).grade("x" * 1_000_000)
    assert len(verdict.reason) < 300


async def test_without_a_task_the_stripped_text_is_the_answer() -> None:
    task = registry.task("none", {})
    assert [await task.final(text) for text in (" a \n", "a", " ")] == ["a", "a", None]


async def test_without_a_task_grading_is_refused_and_never_zero() -> None:
    with pytest.raises(GradingFailed, match="name one in `task`"):
        await registry.task("none", {}).grade("42")


async def test_the_tasks_that_can_grade_are_listed() -> None:
    assert set(registry.names()) - set(registry.gradable()) == {"none"}
