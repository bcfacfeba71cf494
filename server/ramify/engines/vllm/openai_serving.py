"""Plain completions by vLLM's own OpenAI serving classes, on the policy's engine: OpenAI's fields in, its shapes out.

These classes are internal to vLLM, whose version is pinned. Beside their constructors this leans on three habits:
`create_completion`, `create_chat_completion` and `create_responses` give an `ErrorResponse`, a response or an iterator
(of `data: …` frames; that of responses gives events); they take a cancelled wait for a client that left and return as
if nothing had happened; ids of engine requests begin with the request's own id. Names of models, limits and admission
are the service's business. vLLM's store of responses is left off: it never forgets, and knows no keys.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pydantic import ValidationError
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
from vllm.entrypoints.openai.models.protocol import BaseModelPath
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.tokenize.protocol import (
    DetokenizeRequest,
    TokenizeChatRequest,
    TokenizeCompletionRequest,
)
from vllm.entrypoints.serve.tokenize.serving import ServingTokenization
from vllm.exceptions import VLLMClientError
from vllm.parser import ParserManager
from vllm.reasoning import ReasoningParserManager
from vllm.renderers.online_renderer import OnlineRenderer
from vllm.tool_parsers import ToolParserManager

from ramify.engines.errors import EngineError, EngineStartFailed, RequestRefused
from ramify.engines.limiter import EngineLimiter
from ramify.engines.tokenizer import not_variables
from ramify.engines.vllm.engine import VllmEngine
from ramify.search.protocols import EngineDead

COUNTED = {"include_usage": True, "continuous_usage_stats": True}
"""Every chunk says how many tokens its choice has by now."""
FILES = ("name_or_path", "tokenizer_file", "vocab_file", "merges_file")
"""Fields of a tokenizer's configuration that name this machine's files, which is nobody's business."""


class OpenAIServing:
    """Plain completions on a running policy engine."""

    def __init__(
        self, engine: VllmEngine, limiter: EngineLimiter, adapter: Callable[[], str | None] = lambda: None
    ) -> None:
        """adapter: name of the one that the calling task's requests are written with."""
        self._engine, self._limiter, self._adapter = engine, limiter, adapter
        llm, options = engine.client, engine.launch.options
        models = OpenAIServingModels(llm, [BaseModelPath(name="policy", model_path=str(engine.launch.path))])
        models.lora_requests = engine.adapters  # a request has the one that it names as its model
        template: dict[str, Any] = {"chat_template": None, "chat_template_content_format": "auto"}
        parsing: dict[str, Any] = {
            "tool_parser": options.tool_parser,
            "tool_strict_level": options.tool_strict_level,
            "reasoning_parser": options.reasoning_parser or "",
            "enable_auto_tools": options.tool_parser is not None,
        }
        renderer = self._renderer = OnlineRenderer(
            llm.model_config, llm.renderer, request_logger=None, **template, **parsing
        )
        rest: dict[str, Any] = {"online_renderer": renderer, "request_logger": None}
        self._completions = OpenAIServingCompletion(llm, models, **rest)
        self._chat = OpenAIServingChat(llm, models, "assistant", **rest, **template, **parsing)
        self._responses = OpenAIServingResponses(llm, models, **rest, **template, **parsing)
        self._tokenization = ServingTokenization(models, **rest, **template)
        self._not_variables = not_variables()

    async def prompt_tokens(self, body: Mapping[str, Any]) -> int:
        """Tokens of the prompt of a chat or of a response, chat template included.

        Raises `RequestRefused` if no prompt can be made of it."""
        with self._engine.translating():
            request = self._request(body)
            try:
                if isinstance(request, ResponsesRequest):
                    response: Any = self._check(await self._renderer.render_responses(request))
                    inputs: list[Any] = [response.engine_input]
                else:
                    _, inputs = self._check(await self._renderer.render_chat(request))
            except (ValueError, VLLMClientError, EngineError, EngineDead):
                raise
            except Exception as error:  # templates are programs: they raise what they like
                raise RequestRefused(f"no prompt can be made of it: {error!r}"[:300]) from error
        return sum(len(one["prompt_token_ids"]) for one in inputs)

    async def tokenize(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """vLLM's answer to POST /tokenize. Raises `RequestRefused`."""
        kind = TokenizeChatRequest if "messages" in body else TokenizeCompletionRequest
        with self._engine.translating():
            reply = await self._tokenization.create_tokenize(self._validated(kind, body), None)
        return dict(self._check(reply).model_dump())

    async def detokenize(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """vLLM's answer to POST /detokenize. Raises `RequestRefused`."""
        with self._engine.translating():
            request = self._validated(DetokenizeRequest, body)
            reply = await self._tokenization.create_detokenize(request, None)
        return dict(self._check(reply).model_dump())

    async def tokenizer_info(self) -> dict[str, Any]:
        """vLLM's answer to GET /tokenizer_info, less the paths of files."""
        info = self._check(await self._tokenization.get_tokenizer_info()).model_dump(mode="json")
        return {name: value for name, value in info.items() if name not in FILES}

    async def complete(self, body: Mapping[str, Any], sequences: int) -> dict[str, Any]:
        """The whole answer to a request in OpenAI's fields: with `messages` a chat, with `input` a response, else a
        completion. `request_id` is the request's own.

        `sequences`: how many the engine will write for it. Raises `RequestRefused`, `EngineBusy`, `EngineDead` or
        another `EngineError`; cancelled, its engine work is aborted."""
        async with self._work(body, sequences) as request:
            reply = await self._create(request)
            return dict(reply.model_dump(mode="json", by_alias=True))

    async def stream(self, body: Mapping[str, Any], sequences: int) -> AsyncGenerator[dict[str, Any], None]:
        """The same in chunks as they are written, each with the `usage` of its choice so far; the last one has no
        choices and the whole usage. Of a response, its events. Close it to abort."""
        body = {**body, "stream": True}
        if "input" not in body:
            body["stream_options"] = COUNTED
        async with self._work(body, sequences) as request:
            frames = await self._create(request)
            try:
                async for frame in frames:
                    if not isinstance(frame, str):
                        yield frame.model_dump(mode="json", by_alias=True)
                        continue
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
        async with self._limiter.slots(sequences):
            with self._engine.translating():
                request = self._request(body)
                try:
                    yield request
                except BaseException:
                    await self._abort(request)
                    raise

    async def _create(self, request: Any) -> Any:
        if isinstance(request, ChatCompletionRequest):
            reply = await self._chat.create_chat_completion(request)
        elif isinstance(request, ResponsesRequest):
            reply = await self._responses.create_responses(request)
        else:
            reply = await self._completions.create_completion(request)
        if isinstance(reply, ErrorResponse):
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise asyncio.CancelledError
        return self._check(reply)

    def _check(self, reply: Any) -> Any:
        """The reply, unless it is an error."""
        if isinstance(reply, ErrorResponse):
            raise self._failed(reply.error.model_dump())
        return reply

    def _failed(self, error: Mapping[str, Any]) -> Exception:
        """vLLM's error as ours."""
        if reason := self._engine.dead_reason:
            return EngineDead(reason)
        message = str(error.get("message", ""))
        if int(error.get("code") or 500) < 500:
            return RequestRefused(message, error.get("param"))
        return EngineError(f"the engine failed: {message}")

    async def _abort(self, request: Any) -> None:
        if self._engine.dead_reason:
            return
        if isinstance(request, ChatCompletionRequest):
            names = [f"chatcmpl-{request.request_id}"]
        elif isinstance(request, ResponsesRequest):
            names = [f"{request.request_id}_0"]
        else:
            prompts = request.prompt
            count = len(prompts) if isinstance(prompts, list) and not isinstance(prompts[0], int) else 1
            names = [f"cmpl-{request.request_id}-{i}" for i in range(count)]
        await self._engine.client.abort(names)

    def _request(self, body: Mapping[str, Any]) -> Any:
        if "messages" in body:
            return self._validated(ChatCompletionRequest, body)
        return self._validated(ResponsesRequest if "input" in body else CompletionRequest, body)

    def _validated(self, kind: type[Any], body: Mapping[str, Any]) -> Any:
        """vLLM's request. Its validators change what they are given, so they get a copy."""
        if foreign := sorted(body.get("chat_template_kwargs", {}).keys() & self._not_variables):
            message = f"{foreign[0]!r} is no variable of a chat template"
            raise RequestRefused(message, "chat_template_kwargs")
        if (adapter := self._adapter()) is not None:
            body = {**body, "model": adapter}
        try:
            return kind.model_validate(copy.deepcopy(dict(body)))
        except ValidationError as error:
            first = error.errors()[0]
            raise RequestRefused(str(first["msg"]), ".".join(map(str, first["loc"])) or None) from error


def check_parsers(tool_parser: str | None, reasoning_parser: str | None, tokenizer: Any) -> None:
    """Make sure that vLLM knows the parsers and that they can work with the tokenizer. Raises `EngineStartFailed`."""
    known = {
        "engine.tool_parser": (tool_parser, ToolParserManager),
        "engine.reasoning_parser": (reasoning_parser, ReasoningParserManager),
    }
    for setting, (name, manager) in known.items():
        names = manager.list_registered()
        if name is not None and name not in names:
            raise EngineStartFailed(f"{setting} is {name[:50]!r}; vLLM has {', '.join(names)}")
    try:
        ParserManager.get_parser(
            tool_parser_name=tool_parser,
            reasoning_parser_name=reasoning_parser,
            enable_auto_tools=tool_parser is not None,
            tokenizer=tokenizer,
        )
    except Exception as error:  # parsers raise what they like of a tokenizer
        raise EngineStartFailed(f"engine.tool_parser, engine.reasoning_parser: {error}") from error
