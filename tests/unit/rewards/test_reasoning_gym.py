"""examples/reasoning_gym_problems.py: items as reasoning-gym 0.1.25 makes them become rows that `ramify eval` takes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from ramify.rewards.datasets import load

PATH = Path(__file__).parents[3] / "examples" / "reasoning_gym_problems.py"
ITEMS: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "reasoning_gym_items.json").read_text()
)


@pytest.fixture(scope="module")
def example() -> Any:
    spec = importlib.util.spec_from_file_location("reasoning_gym_problems", PATH)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("name", "task"), [("countdown", "countdown"), ("basic_arithmetic", "exact")])
def test_every_item_that_can_be_graded_is_a_row_that_is_taken(
    example: Any, tmp_path: Path, name: str, task: str
) -> None:
    file = tmp_path / "problems.jsonl"
    made = list(example.rows(name, ITEMS[name], plain=True))
    file.write_text("".join(json.dumps(row) + "\n" for row in made))
    taken = load(str(file))
    assert len(taken) == len(ITEMS[name])
    assert {(problem.task, problem.group) for problem in taken} == {(task, name)}


def test_22_what_only_their_own_scorer_could_grade_is_refused(example: Any) -> None:
    with pytest.raises(ValueError, match="more than one answer"):
        list(example.rows("puzzle24", [], plain=False))


def test_numbers_that_our_countdown_does_not_know_are_left_out(example: Any) -> None:
    large = {"question": "", "answer": "", "metadata": {"numbers": [3, 5], "target": 500}}
    assert list(example.rows("countdown", [large], plain=False)) == []


def test_an_answer_of_several_lines_is_left_out(example: Any) -> None:
    assert list(example.rows("game_of_life", [{"question": "?", "answer": "a\nb"}], plain=True)) == []
