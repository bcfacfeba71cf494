"""Text that no tree could hold is refused at the door, by the field's name."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.api.json_body import DEEPEST, parsed
from ramify.service.errors import BadRequest

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=())), inner),
    max_leaves=20,
)


@given(ANYTHING, st.booleans())
def test_what_is_taken_can_be_written_again_and_what_cannot_is_refused(value: Any, ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    try:
        again = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        with pytest.raises(BadRequest):
            parsed(body)
    else:
        assert json.dumps(parsed(body), ensure_ascii=False).encode() == again


@pytest.mark.parametrize(
    ("text", "param"),
    [
        ('{"task": {"problem": {"answer": "x\\ud83d"}}}', "task.problem.answer"),
        ('{"messages": [{"name": "\\udc00"}]}', "messages.0.name"),
        ('{"task": {"problem": {"\\ud83d": 1}}}', "task.problem"),
        ('{"stop": ["a", "\\uD83D"]}', "stop.1"),
        ('{"metadata": {"a": NaN}}', "metadata.a"),
        ('{"metadata": {"a": 1e999}}', "metadata.a"),
        ('{"metadata": {"a": -Infinity}}', "metadata.a"),
        ('{"metadata": {"a": 1' + "0" * 400 + ".0}}", "metadata.a"),
        ('{"a": ' + "[" * 500 + "]" * 500 + "}", "a" + ".0" * (DEEPEST - 1)),
        ("[" * 100_000 + "]" * 100_000, None),
        ('{"a": ' + "9" * 5000 + "}", None),
        ("{", None),
        ("", None),
    ],
)
def test_what_is_refused_is_named(text: str, param: str | None) -> None:
    with pytest.raises(BadRequest) as refused:
        parsed(text.encode())
    assert refused.value.param == param


@pytest.mark.parametrize("body", [b'"\xed\xa0\x80"', b'"\xff"', '"a"'.encode("utf-16")])
def test_only_utf_8_is_read(body: bytes) -> None:
    with pytest.raises(BadRequest, match="not valid UTF-8"):
        parsed(body)


def test_whole_pairs_large_numbers_and_nul_are_taken() -> None:
    assert parsed(b'["\\ud83c\\udf33", "\\u0000", 1e308, -1E-999]') == ["🌳", "\0", 1e308, 0.0]
    assert math.isfinite(parsed(b"1e300"))
    assert parsed(b"\xef\xbb\xbf[]") == []
