"""The command tells a person what happens, in few lines, and refuses what it would not do."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from ramify_trainer.cli import tenths_on


def test_progress_is_a_line_a_tenth_however_often_the_same_is_told() -> None:
    said = StringIO()
    tell = tenths_on(Console(file=said, width=80))
    for done in [0, 0, 0, *range(1, 41), 40, 40]:
        tell("measured", done, 40)
    for _ in range(3):
        tell("measured", 0, 1)
    tell("round 1: promoted", 1, 1)
    tenths = [f"measured {done}/40" for done in range(0, 41, 4)]
    assert said.getvalue().splitlines() == [*tenths, "measured", "round 1: promoted"]
