"""Messages while engines start."""

from __future__ import annotations

import io
from pathlib import Path

from ramify.engines.progress import CLEAR, StartUp, phases


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_a_line_for_every_phase_and_one_every_ten_seconds() -> None:
    stream, clock = io.StringIO(), Clock()
    start = StartUp(stream, clock)
    start.tell("verifying the release")
    for second in range(1, 26):
        clock.now = 100.0 + second
        start.tell("policy engine compiling" if second >= 3 else "verifying the release")
    assert stream.getvalue().splitlines() == [
        "ramify: starting, 0 s: verifying the release",
        "ramify: starting, 3 s: policy engine compiling",
        "ramify: starting, 13 s: policy engine compiling",
        "ramify: starting, 23 s: policy engine compiling",
    ]


def test_a_terminal_has_one_line_that_is_kept_up_to_date_and_goes_at_the_end() -> None:
    stream, clock = Terminal(), Clock()
    with StartUp(stream, clock) as start:
        start.tell("opening the log")
    said = stream.getvalue()
    assert said.startswith(f"{CLEAR}ramify: starting, 0 s: opening the log")
    assert said.endswith(CLEAR)
    assert "\n" not in said


def test_nothing_is_said_once_the_start_is_over() -> None:
    stream = io.StringIO()
    with StartUp(stream, Clock()) as start:
        pass
    start.tell("late")
    assert stream.getvalue() == ""


def test_each_engine_says_its_own_phase(tmp_path: Path) -> None:
    (tmp_path / "policy.phase").write_text("compiling")
    assert (
        phases(tmp_path, ["policy", "value"]) == "policy engine compiling, value engine starting its process"
    )
