"""Plain completions of a policy on another server: its own OpenAI routes, asked in the service's name."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from ramify.engines.limiter import EngineLimiter
from ramify.engines.remote_engine import COMPLETIONS, RemoteEngine

LONGEST = 3600.0
"""Longest time of a whole answer in seconds, whatever the service's own deadline."""
COUNTED = {"include_usage": True, "continuous_usage_stats": True}
"""Every chunk says how many tokens its choice has by now."""
TEMPLATE = ("tools", "chat_template_kwargs", "add_generation_prompt", "continue_final_message")
"""Fields of a chat that its prompt depends on, as vLLM's /tokenize takes them."""


class RemoteOpenAI:
    """`service.ports.Plain` on another server."""

    def __init__(self, engine: RemoteEngine, limiter: EngineLimiter) -> None:
        self._server, self._served, self._limiter = engine.server, engine.served, limiter

    async def prompt_tokens(self, body: Mapping[str, Any]) -> int:
        """Tokens of the prompt of a chat; of a response whose input holds more than messages, about as many.

        Raises `RequestRefused` if no prompt can be made of it."""
        asked = {name: body[name] for name in TEMPLATE if body.get(name) is not None}
        messages = body["messages"] if "messages" in body else _messages(body)
        if asked.get("continue_final_message"):
            asked.setdefault("add_generation_prompt", False)
        if "input" in body:  # tools of a response have another form
            asked.pop("tools", None)
        return int((await self.tokenize({"messages": messages, **asked}))["count"])

    async def tokenize(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """vLLM's answer to POST /tokenize. Raises `RequestRefused`."""
        return dict(await self._server.ask("/tokenize", self._named(body)))

    async def detokenize(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """vLLM's answer to POST /detokenize. Raises `RequestRefused`."""
        return dict(await self._server.ask("/detokenize", self._named(body)))

    async def tokenizer_info(self) -> dict[str, Any]:
        """vLLM's answer to GET /tokenizer_info, if its server was started with --enable-tokenizer-info-endpoint."""
        return dict(await self._server.ask("/tokenizer_info"))

    async def complete(self, body: Mapping[str, Any], sequences: int) -> dict[str, Any]:
        """The whole answer to a request in OpenAI's fields: with `messages` a chat, with `input` a response, else a
        completion.

        `sequences`: how many the server will write for it. Raises `RequestRefused`, `EngineBusy`, `EngineDead` or
        another `EngineError`; cancelled, it closes the connection."""
        async with self._limiter.slots(sequences):
            return dict(await self._server.ask(_path(body), self._named(body), LONGEST))

    async def stream(self, body: Mapping[str, Any], sequences: int) -> AsyncGenerator[dict[str, Any], None]:
        """The same in chunks as they are written, each with the `usage` of its choice so far; the last one has no
        choices and the whole usage. Of a response, its events. Close it to abort."""
        asked = {**self._named(body), "stream": True}
        if "input" not in body:
            asked["stream_options"] = COUNTED
        async with (
            self._limiter.slots(sequences),
            aclosing(self._server.stream(_path(body), asked)) as chunks,
        ):
            async for chunk in chunks:
                yield chunk

    def _named(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return {**body, "model": self._served}


def _path(body: Mapping[str, Any]) -> str:
    if "messages" in body:
        return "/v1/chat/completions"
    return "/v1/responses" if "input" in body else COMPLETIONS


def _messages(body: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the input of a response as messages; what is no message counts as its JSON text."""
    given = body["input"]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else list(given)
    if body.get("instructions"):
        items.insert(0, {"role": "system", "content": body["instructions"]})
    return [{"role": str(item.get("role", "user")), "content": _text(item)} for item in items]


def _text(item: Mapping[str, Any]) -> str:
    content = item.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content)
    return json.dumps(item)
