"""A completion as it was asked for, and the checked request to the engine that is made of it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ramify.engines.errors import RequestRefused
from ramify.service.errors import BadRequest, over, require_token_ids, unknown_model
from ramify.service.ports import Engines
from ramify.service.search_view import owned
from ramify.settings import RequestCaps

Chunk = Mapping[str, Any]
Route = Literal["completion", "chat", "response"]
DEFAULT_TOKENS = 16
"""OpenAI's cap on a completion that names none."""


@dataclass(frozen=True, slots=True)
class CompletionSpec:
    """A completion; with `messages` a chat, with `input` a response. Each value is within its bounds."""

    model: str | None
    prompts: tuple[str | tuple[int, ...], ...] = ()
    messages: tuple[Mapping[str, Any], ...] = ()
    """Messages in vLLM's fields, `content` as one text."""
    input: str | Sequence[Mapping[str, Any]] | None = None
    """Input of a response, in vLLM's fields."""
    n: int = 1
    """Choices for each prompt."""
    max_tokens: int | None = None
    max_tokens_field: str = "max_tokens"
    """Name of the field in which the caller gave it."""
    echo: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict)
    """All other fields, by the names of vLLM's OpenAI request."""
    request_id: str = ""
    """Id of the HTTP request, by which it may be cancelled."""

    @property
    def route(self) -> Route:
        return "response" if self.input is not None else "chat" if self.messages else "completion"

    @property
    def prompt_field(self) -> str:
        return {"response": "input", "chat": "messages", "completion": "prompt"}[self.route]


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """A checked request to the engine."""

    route: Route
    body: Mapping[str, Any]
    sequences: int
    tokens: int
    """Tokens that it may generate."""
    names: frozenset[str] = frozenset()
    """Ids under which it may be cancelled: the answer's and the HTTP request's."""
    scored_only: bool = False
    """True if nothing is to be written: only the log-probabilities of the prompt are wanted."""

    def counted(self, reply: Chunk) -> Chunk:
        """Return vLLM's reply with the caller's usage: to score a prompt vLLM draws a token, and does not send it."""
        usage = reply.get("usage")
        if not self.scored_only or not usage:
            return reply
        return {**reply, "usage": {**usage, "completion_tokens": 0, "total_tokens": usage["prompt_tokens"]}}


PREFIX: Mapping[Route, str] = {"completion": "cmpl-", "chat": "chatcmpl-", "response": "resp_"}
"""Beginning of an answer's id."""


@dataclass(frozen=True, slots=True)
class CompletionPreparer:
    """Prepares completions for the model that is served, within the server's caps."""

    engines: Engines
    limits: RequestCaps
    tools: bool
    """True if the engine can read tool calls in what the model writes."""
    replica: int | None = None
    """Number of this server among several (the setting `replica`)."""

    async def prepare(self, spec: CompletionSpec) -> CompletionRequest:
        """Check a completion. Raises `ServiceError` naming the field at fault, `EngineError` and `EngineDead`."""
        if spec.model is not None and spec.model != self.engines.serving.name:
            raise unknown_model(spec.model, self.engines.serving.name)
        self._check_ids(spec)
        self._check_tools(spec)
        if spec.n > 1 and spec.fields.get("temperature") == 0:
            raise BadRequest("is more than 1 at temperature 0: all answers would be the same", param="n")
        number = owned(secrets.token_hex(16), self.replica)
        answer = PREFIX[spec.route] + number
        body = {**spec.fields, "request_id": answer if spec.route == "response" else number}
        cap, body = await self._capped(spec, body)
        sequences = spec.n * max(1, len(spec.prompts))
        if sequences * cap > self.limits.budget_tokens:
            raise BadRequest(
                f"is {cap}: {sequences} answers of it may cost {sequences * cap} tokens; this server takes at most "
                f"{self.limits.budget_tokens} in one request",
                param=spec.max_tokens_field,
            )
        return CompletionRequest(
            spec.route,
            body,
            sequences,
            sequences * max(1, cap),
            names=frozenset((answer, spec.request_id)),
            scored_only=cap == 0,
        )

    async def _capped(self, spec: CompletionSpec, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Return the cap on one answer's tokens, and the body with its prompt and that cap."""
        if spec.route == "completion":
            prompts = [self._prompt(prompt) for prompt in spec.prompts]
            cap = self._cap(spec, max(map(len, prompts)))
            # vLLM need not tokenize again, unless the prompt's own text is to come back
            body |= {"prompt": list(spec.prompts) if spec.echo else prompts, "max_tokens": cap}
            return cap, body | {"n": spec.n, "echo": spec.echo}
        if spec.route == "chat":
            body |= {"messages": list(spec.messages), "n": spec.n}
            cap = self._cap(spec, await self._rendered(spec, body))
            return cap, body | {"max_completion_tokens": cap}
        body |= {"input": spec.input}
        cap = self._cap(spec, await self._rendered(spec, body))
        return cap, body | {"max_output_tokens": cap}

    def _check_tools(self, spec: CompletionSpec) -> None:
        wanted = spec.fields.get("tools") and spec.fields.get("tool_choice") != "none"
        if wanted and not self.tools:
            raise BadRequest(
                "cannot be called: the server was started without engine.tool_parser, by which calls are read; "
                "with tool_choice 'none' the model is told of them all the same",
                param="tools",
            )

    def _check_ids(self, spec: CompletionSpec) -> None:
        given: dict[str, Sequence[int]] = {
            "logit_bias": [int(token) for token in spec.fields.get("logit_bias", ())],
            "stop_token_ids": spec.fields.get("stop_token_ids", ()),
            "prompt": [t for prompt in spec.prompts if not isinstance(prompt, str) for t in prompt],
        }
        for name, tokens in given.items():
            require_token_ids(tokens, self.engines.serving.vocabulary, name)

    def _prompt(self, prompt: str | Sequence[int]) -> list[int]:
        if len(prompt) > self.limits.prompt_chars:
            raise BadRequest(f"too long: {len(prompt)} > {self.limits.prompt_chars}", param="prompt")
        tokens = self.engines.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
        if not tokens:
            raise BadRequest("must not be empty", param="prompt")
        return tokens

    async def _rendered(self, spec: CompletionSpec, body: Mapping[str, Any]) -> int:
        """Count a conversation's tokens, by the very code that will make its prompt."""
        length = _characters([spec.messages, spec.input, spec.fields.get("instructions")])
        if length > self.limits.prompt_chars:
            raise BadRequest(
                f"too long: {length} characters > {self.limits.prompt_chars}",
                param=spec.prompt_field,
            )
        try:
            return await self.engines.plain.prompt_tokens(body)
        except RequestRefused as error:
            param = error.param if error.param in body else spec.prompt_field
            raise BadRequest(str(error)[:500], param=param) from error

    def _cap(self, spec: CompletionSpec, longest: int) -> int:
        """Return the cap on one answer's tokens."""
        room, cap, name = self.engines.max_model_len - longest, spec.max_tokens, spec.max_tokens_field
        if room < 1:
            raise BadRequest(
                f"has {longest} tokens; the model takes {self.engines.max_model_len}, the answer included",
                param=spec.prompt_field,
            )
        if cap is None:
            return min(room, DEFAULT_TOKENS if spec.route == "completion" else self.limits.answer_tokens)
        if cap == 0 and not spec.echo:
            raise BadRequest("is 0, which requires echo", param=name)
        if cap > self.limits.answer_tokens:
            raise over(name, cap, self.limits.answer_tokens)
        if cap > room:
            raise BadRequest(
                f"is {cap}, but {longest} prompt tokens leave room for {room} in the model's "
                f"{self.engines.max_model_len}",
                param=name,
            )
        return cap


def _characters(value: Any) -> int:
    """Count the characters of all texts in a JSON value."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_characters, value.values()))
    return sum(map(_characters, value)) if isinstance(value, Sequence) else 0
