"""OpenAI's routes: their fields, the table that says how each is taken, and the page that shows it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ramify.api.openai import requests as wire
from ramify.api.openai.fields import FIELDS, MESSAGES, RESPONSES, STREAM_OPTIONS, Route, Row, asks
from ramify.api.openai.replies import Searched
from ramify.api.openai.responses import ResponsesRequest

PAGE = (Path(__file__).parents[3] / "docs" / "openai.md").read_text()
NAMED = {name.partition(".")[0] for name in re.findall(r"`([a-z_.]+)[`:]", PAGE)}
MODELS: list[tuple[Any, Route, Any]] = [
    (wire.CompletionRequest, "completions", FIELDS),
    (wire.ChatRequest, "chat", FIELDS),
    (wire.ChatMessage, "chat", MESSAGES),
    (wire.StreamOptions, "chat", STREAM_OPTIONS),
    (ResponsesRequest, "responses", RESPONSES),
]


@pytest.mark.parametrize(("model", "route", "rows"), MODELS)
def test_every_field_of_the_wire_has_a_row_and_every_row_a_field(
    model: Any, route: Route, rows: dict[str, Row]
) -> None:
    assert set(model.model_fields) == {name for name, row in rows.items() if row.cell(route) is not None}


def test_every_field_of_a_searchs_reply_is_on_the_page() -> None:
    assert set(Searched.model_fields) <= NAMED


def test_a_value_that_asks_for_nothing_is_known_from_one_that_asks() -> None:
    row = FIELDS["logit_bias"]
    assert [asks(row, value) for value in (None, {}, {"5": 1.0})] == [False, False, True]
