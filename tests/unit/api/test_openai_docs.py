from __future__ import annotations

import re
from pathlib import Path

import pytest

from ramify.api import wire_openai as wire
from ramify.api.wire_openai_replies import Searched

PAGE = (Path(__file__).parents[3] / "docs" / "openai.md").read_text()
NAMED = {name.partition(".")[0] for name in re.findall(r"`([a-z_.]+)[`:]", PAGE)}


@pytest.mark.parametrize("model", [wire.CompletionRequest, wire.ChatRequest, wire.ChatMessage, Searched])
def test_every_field_of_openais_routes_is_on_their_page(model: type) -> None:
    fields = set(model.model_fields) - {"role", "content"}  # type: ignore[attr-defined]
    assert fields <= NAMED, fields - NAMED
