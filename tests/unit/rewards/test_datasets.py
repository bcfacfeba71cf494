"""Data sets: generated and from one's own files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ramify.rewards import jsonl
from ramify.rewards.countdown_data import split_of
from ramify.rewards.datasets import load
from ramify.rewards.errors import BadDataset
from ramify.rewards.registry import task
from ramify.rewards.verifier import Message

SIMPLE: dict[str, Any] = {"prompt": "1/4 + 1/4?", "answer": "1/2", "verifier": "math"}
FULL: dict[str, Any] = {
    "id": "capital-fr",
    "messages": [{"role": "user", "content": "Capital of France?"}],
    "task": "exact",
    "problem": {"answer": "Paris", "ignore_case": True},
    "group": "geography",
}


def written(folder: Path, *rows: object) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_countdown_gives_so_many_problems_of_its_split(split: str) -> None:
    examples = load(f"countdown:{split}", 30, seed=3)
    assert len(examples) == len({example.id for example in examples}) == 30
    assert {split_of(example.problem["numbers"]) for example in examples} == {split}
    assert {example.group for example in examples} == {"4 numbers", "5 numbers", "6 numbers"}
    assert all(task(example.task, example.problem) for example in examples)


def test_countdown_prompts_are_the_demo_models() -> None:
    (example,) = load("countdown:dev?numbers=4", 1, seed=0)
    numbers = " ".join(map(str, example.problem["numbers"]))
    assert example.prompt == f"{numbers} to {example.problem['target']}\n"
    assert example.messages == ()


def test_countdown_number_counts_can_be_chosen() -> None:
    assert {e.group for e in load("countdown:test?numbers=5,6", 10, seed=0)} == {"5 numbers", "6 numbers"}


def test_the_same_arguments_give_the_same_examples() -> None:
    assert load("countdown:dev", 9, seed=1) == load("countdown:dev", 9, seed=1)
    assert load("countdown:dev", 9, seed=1) != load("countdown:dev", 9, seed=2)


@pytest.mark.parametrize(
    ("spec", "count", "message"),
    [
        ("countdown:valid", 5, "unknown split 'valid'; there are train, dev, test"),
        ("countdown:test?numbers=3", 5, "numbers"),
        ("countdown:test?numbers=", 5, "numbers"),
        ("countdown:test?numbers=4,4", 5, "numbers"),
        ("countdown:test?size=4", 5, "numbers"),
        ("countdown:test?numbers=4&numbers=5", 5, "twice"),
        ("countdown:test", 0, "at least 1"),
        ("no/such/file.jsonl", 5, "no such file"),
    ],
)
def test_a_data_set_that_cannot_be_named_so_is_refused(spec: str, count: int | None, message: str) -> None:
    with pytest.raises(BadDataset, match=message):
        load(spec, count)


def test_both_forms_of_rows_are_read(tmp_path: Path) -> None:
    simple, full = load(str(written(tmp_path, SIMPLE, "", FULL)))
    assert (simple.id, simple.prompt, simple.task, simple.group) == (
        "rows.jsonl:1",
        "1/4 + 1/4?",
        "math",
        "math",
    )
    assert simple.problem == {"answer": "1/2"}
    assert (full.id, full.prompt, full.group) == ("capital-fr", "", "geography")
    assert full.messages == (Message("user", "Capital of France?"),)
    assert full.problem == {"answer": "Paris", "ignore_case": True}


def test_a_sample_keeps_the_files_order_and_a_larger_one_holds_the_smaller(tmp_path: Path) -> None:
    path = str(written(tmp_path, *({**SIMPLE, "id": f"{i:03}"} for i in range(100))))
    ten, twenty, other = ([e.id for e in load(path, n, seed)] for n, seed in ((10, 0), (20, 0), (10, 1)))
    assert len(ten) == 10
    assert twenty == sorted(twenty)
    assert set(ten) < set(twenty)
    assert ten != other
    assert len(load(path, 1000)) == 100


@pytest.mark.parametrize(
    ("row", "field", "message"),
    [
        ("{", None, "not JSON"),
        ("[1]", None, "object"),
        ('{"prompt": NaN}', None, "NaN"),
        ("[" * 100_000, None, "nested"),
        ('{"problem": ' + "[" * 600 + "]" * 600 + "}", None, "nested"),
        ({**SIMPLE, "anwser": "x"}, "anwser", "unknown"),
        ({**SIMPLE, "messages": []}, "prompt", "either"),
        ({"answer": "1", "verifier": "math"}, "prompt", "either"),
        ({**SIMPLE, "prompt": 3}, "prompt", "string"),
        ({**SIMPLE, "prompt": "x" * 200_001}, "prompt", "200000"),
        ({**SIMPLE, "verifier": "sudoku"}, "verifier", "exact, math"),
        ({"prompt": "x", "answer": "1"}, "verifier", "exact, math"),
        ({"prompt": "x", "verifier": "exact"}, "answer", "string"),
        ({**SIMPLE, "task": "math"}, "task", "either"),
        ({"prompt": "x"}, "task", "either"),
        ({**FULL, "task": ["exact"]}, "task", "one of"),
        ({**FULL, "problem": "Paris"}, "problem", "object"),
        ({**FULL, "problem": {"answer": ""}}, "problem.answer", "blank"),
        (
            {**FULL, "task": "countdown", "problem": {"numbers": [0], "target": 1}},
            "problem.numbers.0",
            "equal to 1",
        ),
        ({**FULL, "messages": []}, "messages", "1 to 64"),
        ({**FULL, "messages": [{"role": "user"}]}, "messages.0", "content"),
        ({**FULL, "messages": [{"role": "tool", "content": "x"}]}, "messages.0.role", "assistant"),
        ({**FULL, "messages": [{"role": "user", "content": ""}]}, "messages.0.content", "blank"),
        ({**FULL, "messages": [{"role": "user", "content": "x" * 150_000}] * 2}, "messages", "200000"),
        ({**FULL, "group": "x" * 201}, "group", "200"),
        ({**FULL, "id": 7}, "id", "string"),
        ({**SIMPLE, "id": "first"}, "id", "unique"),
        (
            '{"prompt": "x", "task": "exact", "problem": {"answer": ' + "1" * 5_000 + "}}",
            "problem.answer",
            "1000",
        ),
        ('{"prompt": 1e999}', "prompt", "too large"),
        ('{"messages": [{"role": "user", "content": "\\ud800"}]}', "messages.0.content", "surrogate"),
        ('{"prompt": "x", "problem": {"\\udfff": 1}}', "problem", "surrogate"),
        ('{"prompt": "x", "prompt": "y"}', "prompt", "twice"),
        (
            '{"prompt": "x", "task": "exact", "problem": {"answer": "a", "answer": "b"}}',
            "problem.answer",
            "twice",
        ),
        ("1" * 5_000, None, "5000"),
        ({**SIMPLE, "answer": "43 = 42"}, "answer", "cannot be read"),
    ],
)
def test_a_bad_row_is_refused_by_file_line_and_field(
    tmp_path: Path, row: object, field: str | None, message: str
) -> None:
    path = written(tmp_path, {**SIMPLE, "id": "first"}, "", row)
    with pytest.raises(BadDataset) as refused:
        load(str(path), 1)
    error = refused.value
    assert (error.source, error.line, error.field) == (str(path), 3, field)
    assert message in error.message
    assert f"{path}, line 3" in str(error)
    assert len(str(error)) < 500


def test_bytes_that_are_no_text_are_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json.dumps(SIMPLE).encode() + b'\n{"prompt": "\xff"}\n')
    with pytest.raises(BadDataset, match="line 2: is not UTF-8"):
        load(str(path))


def test_an_endless_line_is_refused_before_it_is_read_whole(tmp_path: Path) -> None:
    path = written(tmp_path, {**SIMPLE, "prompt": "x" * (jsonl.MAX_LINE_BYTES * 3)})
    with pytest.raises(BadDataset, match="line 1: has more than 1048576 bytes"):
        load(str(path))


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match="has no rows"):
        load(str(written(tmp_path, "", "")))
