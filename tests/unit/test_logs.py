"""Text from outside can neither forge a log line nor steer a terminal."""

from __future__ import annotations

import io
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.logs import EscapingFormatter, escaped

FORGED = "/x\n2026-01-01T00:00:00Z INFO ramify forged\x1b[31m\r\u2028\x85\ud83d\u202e"


def lines_of(*args: object, **options: object) -> list[str]:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(EscapingFormatter())
    logger = logging.Logger("ramify.test")
    logger.addHandler(handler)
    logger.info(*args, **options)  # type: ignore[arg-type]
    return out.getvalue().split("\n")[:-1]


def test_an_event_is_one_line_whatever_is_in_it() -> None:
    (line,) = lines_of("GET %s", FORGED)
    assert line.endswith(
        r"Z INFO ramify.test GET /x\n2026-01-01T00:00:00Z INFO ramify forged\x1b[31m\r\u2028\x85\ud83d\u202e"
    )


def test_a_traceback_keeps_its_lines_and_none_looks_like_an_event() -> None:
    try:
        raise ValueError(FORGED)
    except ValueError:
        event, *rest = lines_of("failed", exc_info=True, stack_info=True)
    assert event.endswith(" failed")
    assert len(rest) > 4
    assert all(line.startswith("    ") and line.isprintable() for line in rest)
    assert any("test_a_traceback_keeps_its_lines" in line for line in rest)


@given(st.text(st.characters(exclude_categories=())))
def test_an_escaped_text_is_printable_and_a_printable_one_is_left_alone(text: str) -> None:
    assert escaped(text).isprintable()
    assert escaped(text) == text or not text.isprintable()


@pytest.mark.parametrize("text", ["", "3 5 7 8 to 24", "größer, 漢字, 🌳", r"C:\new"])
def test_what_people_read_stays_as_it_is(text: str) -> None:
    assert escaped(text) == text
