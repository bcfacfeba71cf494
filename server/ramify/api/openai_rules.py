"""What no single field's type can say: fields of OpenAI's routes that depend on each other, and on `search`."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

from ramify.api import wire_openai as wire
from ramify.api.openai_fields import FIELDS, MESSAGES, Row, asks
from ramify.api.wire_search import MOST_ANSWERS
from ramify.service.errors import BadRequest


def check(body: wire.CompletionRequest | wire.ChatRequest) -> None:
    """Raises `BadRequest`, naming the field."""
    if body.stream_options is not None and not body.stream:
        raise BadRequest("makes sense with stream only", param="stream_options")
    if isinstance(body, wire.ChatRequest):
        _check_chat(body)
    else:
        _check_completion(body)
    if body.search is not None:
        _check_search(body)


def without_effect(body: wire.CompletionRequest | wire.ChatRequest) -> list[str]:
    """The fields that ask for something and have no effect on a search, for its reply to name."""
    return [
        name for name, row in FIELDS.items() if row.search == "told" and asks(row, getattr(body, name, None))
    ]


def _check_completion(body: wire.CompletionRequest) -> None:
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise BadRequest(
            'must equal n; the best of more answers is {"search": {"algorithm": "best_of_n"}}',
            param="best_of",
        )


def _check_chat(body: wire.ChatRequest) -> None:
    if body.top_logprobs and not body.logprobs:
        raise BadRequest("makes sense with logprobs only", param="top_logprobs")
    if body.max_tokens is not None and body.max_completion_tokens not in (None, body.max_tokens):
        raise BadRequest("is max_completion_tokens by its older name: give one of them", param="max_tokens")
    if body.continue_final_message and body.add_generation_prompt:
        raise BadRequest(
            "would begin another turn: continue_final_message goes on with the last one",
            param="add_generation_prompt",
        )


def _check_neutral(model: BaseModel, fields: Mapping[str, Row], where: str = "") -> None:
    """Refuse what only a request without `search` may ask for."""
    for name, row in fields.items():
        value = getattr(model, name, None)
        given = value.model_dump(exclude_none=True, by_alias=True) if isinstance(value, BaseModel) else value
        if row.search == "neutral" and asks(row, given):
            raise BadRequest("has no effect on a search: leave it out", param=where + name)


def _check_search(body: wire.CompletionRequest | wire.ChatRequest) -> None:
    _check_neutral(body, FIELDS)
    for i, message in enumerate(body.messages if isinstance(body, wire.ChatRequest) else ()):
        _check_neutral(message, MESSAGES, f"messages.{i}.")
    if (body.n or 1) > MOST_ANSWERS:
        raise BadRequest(f"is {body.n}; a search gives at most {MOST_ANSWERS} answers", param="n")
    if isinstance(body, wire.ChatRequest):
        return
    if body.logprobs:
        raise BadRequest("only drawn tokens are in a search's tree: must be 0", param="logprobs")
    if body.max_tokens == 0:
        raise BadRequest("must be at least 1 with search", param="max_tokens")
    if isinstance(body.prompt, list) and not isinstance(body.prompt[0], int) and len(body.prompt) > 1:
        raise BadRequest(f"holds {len(body.prompt)} prompts; a search takes one", param="prompt")
