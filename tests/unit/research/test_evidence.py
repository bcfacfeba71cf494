"""The evidence made again by one command: what is done is not done twice, and what was stopped goes on."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from ramify_trainer.loop.state import STATE, State
from research.evidence import PARTS, Part, make, parts_in

REPOSITORY = Path(__file__).resolve().parents[3]
NOTES = "import sys, pathlib; pathlib.Path(sys.argv[1], 'order').open('a').write(sys.argv[2])"
"""Note that a part has run."""


def part(name: str, program: str, **settings: object) -> Part:
    command = ("python", "-c", f"{NOTES}; {program}", "{out}", name)
    return Part.model_validate(
        {"name": name, "title": name.upper(), "command": command, "minutes": 2, **settings}
    )


def order(out: Path) -> str:
    return (out / "order").read_text()


def test_what_failed_goes_on_without_what_was_done(tmp_path: Path):
    needs = "assert pathlib.Path(sys.argv[1], 'there').exists(); print('| b |')"
    parts = [part("a", "print('| a |')", tables=["a.txt"]), part("b", needs, tables=["b.txt"]), part("c", "")]
    with pytest.raises(subprocess.CalledProcessError):
        make(parts, tmp_path, lambda line: None)
    assert (order(tmp_path), (tmp_path / "tables.md").read_text()) == ("ab", "## A\n\n| a |\n")
    (tmp_path / "there").touch()
    said: list[str] = []
    make(parts, tmp_path, said.append)
    assert (order(tmp_path), said[0]) == ("abbc", "b: B, 2 minutes; 2 parts, 4 minutes left")
    assert (tmp_path / "tables.md").read_text() == "## A\n\n| a |\n\n## B\n\n| b |\n"
    make(parts, tmp_path, lambda line: None)
    assert order(tmp_path) == "abbc"


def test_a_part_whose_command_has_changed_is_done_again(tmp_path: Path):
    for program in ("", "0", "0"):
        make([part("a", program)], tmp_path, lambda line: None)
    assert order(tmp_path) == "aa"


def test_plots_come_together_under_the_names_of_their_parts(tmp_path: Path):
    draws = "folder = pathlib.Path(*sys.argv[1:]); folder.mkdir(); (folder / 'c.png').touch()"
    make([part(name, draws, plots=[f"{name}/c.png"]) for name in "ab"], tmp_path, lambda line: None)
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"a-c.png", "b-c.png"}


def test_a_part_may_begin_with_what_a_loop_served_last(tmp_path: Path):
    state = State.begin("loop", "v000001")
    state.incumbent = "v000004"
    (tmp_path / "loop-0" / "state").mkdir(parents=True)
    state.save(tmp_path / "loop-0" / "state" / STATE)
    says = Part(
        name="a",
        title="A",
        command=("python", "-c", "import sys; print(sys.argv[1])", "{last loop-0}"),
        minutes=0,
    )
    make([says], tmp_path, lambda line: None)
    assert (tmp_path / "a.txt").read_text().strip() == str(tmp_path / "loop-0" / "weights" / "v000004")


def test_the_page_states_the_whole_time():
    page = (REPOSITORY / "docs" / "evidence.md").read_text(encoding="utf-8")
    parts = parts_in(PARTS)
    stated = re.search(r"(\d+) minutes in all", page)
    assert stated is not None
    assert int(stated[1]) == sum(one.minutes for one in parts)


def test_every_file_that_a_part_names_is_there():
    for one in parts_in(PARTS):
        for word in one.command:
            if word.endswith((".toml", ".py")) or word.startswith("trainer/"):
                assert (REPOSITORY / word).exists()
