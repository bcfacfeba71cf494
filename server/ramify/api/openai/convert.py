"""Convert OpenAI's wire models to what the service is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from ramify.api import convert
from ramify.api.openai import requests as wire
from ramify.api.openai.fields import Route, to_vllm
from ramify.rewards import Message
from ramify.service.completion_spec import CompletionSpec
from ramify.service.errors import BadRequest
from ramify.service.search_spec import SearchSpec

Body = wire.CompletionRequest | wire.ChatRequest

SEED_BITS = 62
"""Bits of a seed that are kept: vLLM adds the index of the choice, and the sum must be a signed 64-bit number."""


def completion_spec(body: Body, request_id: str = "") -> CompletionSpec:
    """Convert a request without `search`."""
    fields = for_vllm(body, "chat" if isinstance(body, wire.ChatRequest) else "completions")
    if fields.get("continue_final_message"):
        fields["add_generation_prompt"] = False
    return CompletionSpec(
        body.model,
        prompts=() if isinstance(body, wire.ChatRequest) else _prompts(body),
        messages=chat_messages(body.messages) if isinstance(body, wire.ChatRequest) else (),
        n=body.n or 1,
        max_tokens=getattr(body, cap_field(body)),
        max_tokens_field=cap_field(body),
        echo=isinstance(body, wire.CompletionRequest) and bool(body.echo),
        fields=fields,
        request_id=request_id,
    )


def for_vllm(body: BaseModel, route: Route) -> dict[str, Any]:
    """Return the fields that vLLM honours, under its names, and `seed`, to which it adds a choice's index."""
    names = {*to_vllm(route), "seed"}
    fields = body.model_dump(exclude_unset=True, exclude_none=True, by_alias=True, include=names)
    if "seed" in fields:
        fields["seed"] = _seed(fields["seed"])
    if fields.get("tools") == []:
        del fields["tools"]  # which vLLM refuses
    return fields


def chat_messages(messages: Sequence[wire.ChatMessage]) -> tuple[dict[str, Any], ...]:
    """Convert a conversation to vLLM's fields."""
    known = {"role", "name", "tool_calls", "tool_call_id", "reasoning", "reasoning_content"}
    return tuple(
        {
            **message.model_dump(exclude_none=True, include=known),
            **({} if message.content is None else {"content": _text(message.content)}),
        }
        for message in messages
    )


def search_spec(body: Body) -> SearchSpec:
    """Convert a request with `search`. `max_tokens` and `stop` hold for one answer; `search.action` has its own."""
    search = dict(convert.given(body.search))
    task, train, defaults = search.pop("task", {}), search.pop("train", True), search.pop("defaults", True)
    sampling = {
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": convert.top_k(body.top_k),
        "max_tokens": getattr(body, cap_field(body)),
        "stop": stops(body) or None,
    }
    return SearchSpec(
        prompt=_prompt(body),
        messages=_messages(body),
        template=_template(body),
        model=body.model,
        task=task.get("name"),
        problem=task.get("problem"),
        search=search,
        sampling={name: value for name, value in sampling.items() if value is not None},
        defaults=defaults,
        greedy_by_habit=True,
        seed=None if body.seed is None else _seed(body.seed),
        train=train,
    )


def renamed(error: BadRequest, body: Body) -> BadRequest:
    """Return the same refusal with its field under OpenAI's name."""
    field, own = error.param or "", cap_field(body)
    message = error.message.replace("sampling.max_tokens", own)
    if field == "sampling.max_tokens":
        field = own
    elif field.startswith("sampling."):
        field = field.removeprefix("sampling.")
    elif field.startswith("task"):
        field = f"search.{field}"
    return BadRequest(message, param=field or None)


def cap_field(body: Body) -> str:
    """Return the body's name for the cap on one answer."""
    chat = isinstance(body, wire.ChatRequest) and body.max_tokens is None
    return "max_completion_tokens" if chat else "max_tokens"


def stops(body: Body) -> tuple[str, ...]:
    """Return the strings that end an answer."""
    return (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())


def _seed(seed: int) -> int:
    return seed & (1 << SEED_BITS) - 1


def _prompts(body: wire.CompletionRequest) -> tuple[str | tuple[int, ...], ...]:
    prompt = body.prompt
    if isinstance(prompt, str):
        return (prompt,)
    if isinstance(prompt[0], int):
        return (tuple(token for token in prompt if isinstance(token, int)),)
    return tuple(one if isinstance(one, str) else tuple(one) for one in prompt if not isinstance(one, int))


def _prompt(body: Body) -> str | tuple[int, ...] | None:
    """Return the one prompt that `requests.check` lets through."""
    if isinstance(body, wire.ChatRequest):
        return None
    (prompt,) = _prompts(body)
    return prompt


def _messages(body: Body) -> tuple[Message, ...]:
    if isinstance(body, wire.CompletionRequest):
        return ()
    return tuple(Message(m.role, _text(m.content or ""), m.name) for m in body.messages)


def _template(body: Body) -> dict[str, Any]:
    """Return what the chat template is told beside the messages, as vLLM tells it for the same request."""
    if isinstance(body, wire.CompletionRequest):
        return {}
    told: dict[str, Any] = {}
    if body.continue_final_message:
        told = {"continue_final_message": True, "add_generation_prompt": False}
    elif body.add_generation_prompt is not None:
        told = {"add_generation_prompt": body.add_generation_prompt}
    if body.reasoning_effort is not None:
        told |= {
            "reasoning_effort": body.reasoning_effort,
            "enable_thinking": body.reasoning_effort != "none",
        }
    return told | (body.chat_template_kwargs or {})


def _text(content: str | list[wire.TextPart]) -> str:
    return content if isinstance(content, str) else "\n".join(part.text for part in content)
