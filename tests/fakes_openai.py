"""Plain completions by the fake model, in the shapes that vLLM's serving classes give."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fakes import FakePolicy, encode
from ramify.search.protocols import SampleAborted
from ramify.search.records import Continuation, Sampling


@dataclass
class FakePlain:
    """Draws by the fake policy; a chunk a line. `refuse` raises instead; `finish` ends every answer so; `called` are
    the tool calls of every message."""

    policy: FakePolicy
    refuse: Exception | None = None
    finish: str | None = None
    called: list[dict[str, Any]] = field(default_factory=list)
    gate: asyncio.Event | None = None
    """Waited for after the first chunk of a stream."""
    breaks: Exception | None = None
    """Raised after the first chunk of a stream."""
    bodies: list[Mapping[str, Any]] = field(default_factory=list)
    """Requests, in order."""

    async def prompt_tokens(self, body: Mapping[str, Any]) -> int:
        self._check()
        return sum(map(len, self._prompts(body)))

    async def tokenize(self, body: Mapping[str, Any]) -> dict[str, Any]:
        self._check()
        (tokens,) = self._prompts({**body, "prompt": [body.get("prompt")]})
        texts = [chr(token) for token in tokens] if body.get("return_token_strs") else None
        return {"count": len(tokens), "max_model_len": 512, "tokens": tokens, "token_strs": texts}

    async def detokenize(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return {"prompt": "".join(map(chr, body["tokens"]))}  # special tokens have texts here

    async def tokenizer_info(self) -> dict[str, Any]:
        return {"tokenizer_class": "Letters", "eos_token": "</s>"}

    async def complete(self, body: Mapping[str, Any], sequences: int) -> dict[str, Any]:
        prompts, draws = await self._draw(body, sequences)
        if "input" in body:
            return response(body, prompts, draws)
        choices = [self._choice(body, i, step) for i, step in enumerate(draws)]
        return {**self._head(body), "choices": choices, "usage": usage(prompts, draws)}

    async def stream(self, body: Mapping[str, Any], sequences: int) -> AsyncGenerator[dict[str, Any], None]:
        first = True
        async for chunk in self._chunks(body, sequences):
            yield chunk
            if first and self.gate is not None:
                await self.gate.wait()
            if first and self.breaks is not None:
                raise self.breaks
            first = False

    def _check(self) -> None:
        if self.refuse is not None:
            raise self.refuse

    async def _chunks(self, body: Mapping[str, Any], sequences: int) -> AsyncGenerator[dict[str, Any], None]:
        prompts, draws = await self._draw(body, sequences)
        if "input" in body:
            for event in events(body, prompts, draws):
                yield event
            return
        head = self._head(body)
        if "messages" in body:
            head["object"] = "chat.completion.chunk"
        for index, step in enumerate(draws):
            lines = step.text.splitlines(keepends=True)
            for i, line in enumerate(lines):
                last = i == len(lines) - 1
                content = {"delta": {"content": line}} if "messages" in body else {"text": line}
                finish = self._finish(step) if last else None
                yield {
                    **head,
                    "choices": [{"index": index, "logprobs": None, "finish_reason": finish, **content}],
                    "usage": usage(prompts[:1], [step]),
                }
        yield {**head, "choices": [], "usage": usage(prompts, draws)}

    async def _draw(
        self, body: Mapping[str, Any], sequences: int
    ) -> tuple[list[list[int]], list[Continuation]]:
        self.bodies.append(body)
        self._check()
        prompts = self._prompts(body)
        cap = body.get("max_completion_tokens", body.get("max_tokens", body.get("max_output_tokens")))
        assert cap is not None  # vLLM too draws a token to score a prompt
        stop = body.get("stop", ()) if body.get("include_stop_str_in_output") else ()
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        sampling = Sampling(max_tokens=max(1, cap), temperature=body.get("temperature", 1.0), stop=stops)
        seeds = random.Random(body.get("seed"))
        steps: list[Continuation] = []
        for prompt in prompts:
            own = [seeds.randrange(1 << 32) for _ in range(body.get("n", 1))]
            try:
                steps += await self.policy.sample(prompt, sampling, own)
            except SampleAborted:
                raise asyncio.CancelledError from None
        assert len(steps) == sequences
        return prompts, steps

    @staticmethod
    def _prompts(body: Mapping[str, Any]) -> list[list[int]]:
        if "input" in body:
            given = body["input"]
            texts = [given] if isinstance(given, str) else [str(item.get("content", "")) for item in given]
            return [list(encode("".join(texts)))]
        if "messages" in body:
            return [list(encode("".join(m.get("content", "") for m in body["messages"])))]
        return [list(encode(p)) if isinstance(p, str) else p for p in body["prompt"]]

    @staticmethod
    def _head(body: Mapping[str, Any]) -> dict[str, Any]:
        kind = "chat.completion" if "messages" in body else "text_completion"
        prefix = "chatcmpl-" if "messages" in body else "cmpl-"
        return {
            "id": prefix + body["request_id"],
            "object": kind,
            "created": 1_700_000_000,
            "model": "policy",
        }

    def _choice(self, body: Mapping[str, Any], index: int, step: Continuation) -> dict[str, Any]:
        content = (
            {"message": {"role": "assistant", "content": step.text, "tool_calls": self.called}}
            if "messages" in body
            else {"text": step.text}
        )
        return {"index": index, "logprobs": None, "finish_reason": self._finish(step), **content}

    def _finish(self, step: Continuation) -> str:
        return self.finish or ("length" if step.finish == "length" else "stop")


def response(body: Mapping[str, Any], prompts: list[list[int]], draws: list[Continuation]) -> dict[str, Any]:
    """A response in vLLM's shape, of one message."""
    count = usage(prompts, draws)
    text = {"type": "output_text", "text": draws[0].text, "annotations": []}
    return {
        "id": body["request_id"],
        "object": "response",
        "created_at": 1_700_000_000,
        "model": "policy",
        "status": "completed",
        "output": [{"type": "message", "id": "msg_1", "role": "assistant", "content": [text]}],
        "metadata": body.get("metadata"),
        "usage": {
            "input_tokens": count["prompt_tokens"],
            "output_tokens": count["completion_tokens"],
            "total_tokens": count["total_tokens"],
        },
    }


def events(
    body: Mapping[str, Any], prompts: list[list[int]], draws: list[Continuation]
) -> Iterator[dict[str, Any]]:
    """The same as events."""
    whole = response(body, prompts, draws)
    yield {
        "type": "response.created",
        "sequence_number": 0,
        "response": {**whole, "output": [], "usage": None},
    }
    for i, line in enumerate(draws[0].text.splitlines(keepends=True)):
        yield {"type": "response.output_text.delta", "sequence_number": i + 1, "delta": line}
    yield {"type": "response.completed", "sequence_number": 9, "response": whole}


def usage(prompts: list[list[int]], draws: list[Continuation]) -> dict[str, int]:
    read, written = sum(map(len, prompts)), sum(len(step.token_ids) for step in draws)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
