"""Plain completions by vLLM's own OpenAI serving classes, on the policy's engine: OpenAI's fields in, its shapes out.

These classes are internal to vLLM 0.32, which is pinned; no other module of ours knows them. What is leant on beside
their constructors: `create_completion` and `create_chat_completion` give an `ErrorResponse`, a response or an iterator
of `data: …` frames; they take a cancelled wait for a client that left and return as if nothing had happened; ids of
engine requests begin with the request's own id. Names of models, limits and admission are the service's business.

Import it only where `backend` may be imported.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pydantic import ValidationError
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
from vllm.entrypoints.openai.models.protocol import BaseModelPath
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.renderers.online_renderer import OnlineRenderer

from ramify.engines.admission import Slots
from ramify.engines.backend import Backend
from ramify.engines.errors import EngineError, RequestRefused
from ramify.search.protocols import EngineDead

COUNTED = {"include_usage": True, "continuous_usage_stats": True}
"""Every chunk says how many tokens its choice has by now."""


class OpenAIServing:
    """Plain completions on a running policy engine."""

    def __init__(self, backend: Backend, slots: Slots) -> None:
        self._backend, self._slots = backend, slots
        self._ids = itertools.count()
        llm = backend.client
        models = OpenAIServingModels(llm, [BaseModelPath(name="policy", model_path=str(backend.launch.path))])
        renderer = self._renderer = OnlineRenderer(
            llm.model_config,
            llm.renderer,
            request_logger=None,
            chat_template=None,
            chat_template_content_format="auto",
        )
        self._completions = OpenAIServingCompletion(
            llm, models, online_renderer=renderer, request_logger=None
        )
        self._chat = OpenAIServingChat(
            llm,
            models,
            "assistant",
            online_renderer=renderer,
            request_logger=None,
            chat_template=None,
            chat_template_content_format="auto",
        )

    async def prompt_tokens(self, body: Mapping[str, Any]) -> int:
        """Tokens of a chat's prompt, chat template included. Raises `RequestRefused` if no prompt can be made of it."""
        with self._backend.translating():
            rendered = await self._renderer.render_chat(_request(body))
        if isinstance(rendered, ErrorResponse):
            raise self._failed(rendered.error.model_dump())
        _, inputs = rendered
        return sum(len(one["prompt_token_ids"]) for one in inputs)

    async def complete(self, body: Mapping[str, Any], sequences: int) -> dict[str, Any]:
        """The whole answer to a request in OpenAI's fields (with `messages` a chat, else a completion).

        `sequences`: how many the engine will write for it. Raises `RequestRefused`, `EngineBusy`, `EngineDead` or
        another `EngineError`; cancelled, its engine work is aborted."""
        async with self._work(body, sequences) as request:
            reply = await self._create(request)
            return dict(reply.model_dump())

    async def stream(self, body: Mapping[str, Any], sequences: int) -> AsyncGenerator[dict[str, Any], None]:
        """The same in chunks as they are written, each with the `usage` of its choice so far; the last one has no
        choices and the whole usage. Close it to abort."""
        body = {**body, "stream": True, "stream_options": COUNTED}
        async with self._work(body, sequences) as request:
            frames = await self._create(request)
            try:
                async for frame in frames:
                    data = frame.removeprefix("data: ").strip()
                    if data == "[DONE]":
                        continue
                    chunk = json.loads(data)
                    if "error" in chunk:
                        raise self._failed(chunk["error"])
                    yield chunk
            finally:
                await frames.aclose()

    @asynccontextmanager
    async def _work(self, body: Mapping[str, Any], sequences: int) -> AsyncIterator[Any]:
        """A place in the engine and the request made for it; whatever is left of it in the end is aborted."""
        taken = await self._slots.acquire(sequences)
        try:
            with self._backend.translating():
                request = _request({**body, "request_id": f"p{next(self._ids)}"})
                try:
                    yield request
                except BaseException:
                    await self._abort(request)
                    raise
        finally:
            self._slots.release(taken)

    async def _create(self, request: Any) -> Any:
        if isinstance(request, ChatCompletionRequest):
            reply = await self._chat.create_chat_completion(request)
        else:
            reply = await self._completions.create_completion(request)
        if isinstance(reply, ErrorResponse):
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise asyncio.CancelledError
            raise self._failed(reply.error.model_dump())
        return reply

    def _failed(self, error: Mapping[str, Any]) -> Exception:
        """vLLM's error as ours."""
        if reason := self._backend.dead_reason:
            return EngineDead(reason)
        message = str(error.get("message", ""))
        if int(error.get("code") or 500) < 500:
            return RequestRefused(message, error.get("param"))
        return EngineError(f"the engine failed: {message}")

    async def _abort(self, request: Any) -> None:
        if self._backend.dead_reason:
            return
        if isinstance(request, ChatCompletionRequest):
            names = [f"chatcmpl-{request.request_id}"]
        else:
            prompts = request.prompt
            count = len(prompts) if isinstance(prompts, list) and not isinstance(prompts[0], int) else 1
            names = [f"cmpl-{request.request_id}-{i}" for i in range(count)]
        await self._backend.client.abort(names)


def _request(body: Mapping[str, Any]) -> Any:
    try:
        return (ChatCompletionRequest if "messages" in body else CompletionRequest).model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        raise RequestRefused(str(first["msg"]), ".".join(map(str, first["loc"])) or None) from error
