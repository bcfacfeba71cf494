"""What no single field's type can say of POST /v1/responses: its items and tools are text and functions only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ramify.api.wire_responses import ResponsesRequest
from ramify.service.errors import BadRequest

ITEMS = ("message", "function_call", "function_call_output", "reasoning")
PARTS = ("input_text", "output_text", "reasoning_text", "summary_text", "refusal", "text")
"""Parts of a message that hold text. An image or a file would be fetched from wherever its address says."""
FORMATS = ("text", "json_object", "json_schema")
INCLUDED = ("message.output_text.logprobs", "reasoning.encrypted_content")
"""What clients ask to be included; reasoning is never encrypted here, so there is nothing to add."""


def check(body: ResponsesRequest) -> None:
    """Raises `BadRequest`, naming the field."""
    for where, kind, known in _kinds(body):
        if kind not in known:
            raise BadRequest(f"is {str(kind)[:50]!r}; there are {', '.join(known)}", param=where)


def _kinds(body: ResponsesRequest) -> Iterator[tuple[str, Any, tuple[str, ...]]]:
    """Every place that names a kind, the kind, and the kinds that are served there."""
    for i, item in enumerate(body.input if isinstance(body.input, list) else ()):
        yield f"input.{i}.type", item.get("type", "message"), ITEMS
        for name in ("content", "output", "summary"):
            yield from _parts(f"input.{i}.{name}", item.get(name))
    for i, tool in enumerate(body.tools or ()):
        yield f"tools.{i}.type", tool.get("type"), ("function",)
    for name in (body.text or {}).keys() - {"format", "verbosity"}:
        yield f"text.{name}", name, ("format", "verbosity")
    form = (body.text or {}).get("format")
    if form is not None:
        yield "text.format.type", form.get("type") if isinstance(form, Mapping) else form, FORMATS
    for i, name in enumerate(body.include or ()):
        yield f"include.{i}", name, INCLUDED


def _parts(where: str, content: Any) -> Iterator[tuple[str, Any, tuple[str, ...]]]:
    for i, part in enumerate(content if isinstance(content, list) else ()):
        yield f"{where}.{i}.type", part.get("type") if isinstance(part, Mapping) else part, PARTS
