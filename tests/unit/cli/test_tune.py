"""`ramify tune` refuses what it cannot do before it starts an engine, and by name."""

import json

import pytest
from typer.testing import CliRunner

from ramify.cli import app


def said(*words: object):
    found = CliRunner().invoke(app, ["tune", *map(str, words)])
    return found.exit_code, " ".join(found.output.split())


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--resume"], "--resume needs --out DIR"),
        (["--budgets", "1k"], "--budgets: '1k' is no budget"),
        (["--budgets", ""], "--budgets: names no budget"),
        (["--algorithms", "mtcs"], "did you mean 'mcts'"),
        (["--algorithms", ","], "--algorithms names none"),
        (["--data", "countdown:dve"], "unknown split 'dve'"),
        (["--trials", "2"], "--trials"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, words, complaint):
    code, output = said("--out", tmp_path / "out", *words) if "--resume" not in words else said(*words)
    assert code == 2
    assert complaint in output
    assert not (tmp_path / "out").exists()


def test_a_data_set_too_small_to_hold_any_out_is_refused(tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text(
        "".join(json.dumps({"prompt": f"{i}?", "answer": "b", "verifier": "exact"}) + "\n" for i in range(20))
    )
    code, output = said("--data", data, "--problems", 16, "--held-out", 10)
    assert code == 2
    assert "has 20 problems: too few for --problems 16 and --held-out 10" in output


def test_a_folder_with_another_run_is_left_alone(tmp_path):
    (tmp_path / "settings.json").write_text("{}")
    before = (tmp_path / "settings.json").read_text()
    code, output = said("--out", tmp_path)
    assert (code, "--resume goes on with it" in output) == (2, True)
    code, output = said("--out", tmp_path, "--resume")
    assert (code, "is of another run" in output) == (2, True)
    assert (tmp_path / "settings.json").read_text() == before
