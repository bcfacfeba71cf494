"""What no single field's type can say: fields of OpenAI's routes that depend on each other, and on `search`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ramify.api import wire_openai as wire
from ramify.api.wire_search import MOST_ANSWERS
from ramify.service.errors import BadRequest

NEUTRAL: Mapping[str, Any] = {
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logit_bias": {},
    "echo": False,
    "min_p": 0,
    "repetition_penalty": 1,
    "min_tokens": 0,
    "stop_token_ids": [],
    "include_stop_str_in_output": False,
    "ignore_eos": False,
    "skip_special_tokens": True,
}
"""Fields that mean nothing beside `search`, and their one value that changes nothing."""


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


def _check_search(body: wire.CompletionRequest | wire.ChatRequest) -> None:
    for name, neutral in NEUTRAL.items():
        if getattr(body, name, None) not in (None, neutral):
            raise BadRequest("has no effect on a search: leave it out", param=name)
    if (body.n or 1) > MOST_ANSWERS:
        raise BadRequest(f"is {body.n}; a search gives at most {MOST_ANSWERS} answers", param="n")
    if isinstance(body, wire.ChatRequest):
        if body.top_logprobs:
            raise BadRequest("only drawn tokens are in a search's tree: must be 0", param="top_logprobs")
        return
    if body.logprobs:
        raise BadRequest("only drawn tokens are in a search's tree: must be 0", param="logprobs")
    if body.max_tokens == 0:
        raise BadRequest("must be at least 1 with search", param="max_tokens")
    if not isinstance(body.prompt, str) and not (len(body.prompt) == 1 and isinstance(body.prompt[0], str)):
        raise BadRequest("a search takes one prompt, as text", param="prompt")
