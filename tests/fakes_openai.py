"""Plain completions by the fake model, in the shapes that vLLM's serving classes give."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fakes import FakePolicy, encode
from ramify.search.protocols import SampleAborted
from ramify.search.records import Draw, Step


@dataclass
class FakePlain:
    """Draws by the fake policy; a chunk a line. `refuse` raises instead; `finish` ends every answer so."""

    policy: FakePolicy
    refuse: Exception | None = None
    finish: str | None = None
    bodies: list[Mapping[str, Any]] = field(default_factory=list)
    """What was asked, in order."""

    async def prompt_tokens(self, body: Mapping[str, Any]) -> int:
        return sum(map(len, self._prompts(body)))

    async def complete(self, body: Mapping[str, Any], sequences: int) -> dict[str, Any]:
        prompts, draws = await self._draw(body, sequences)
        choices = [self._choice(body, i, step) for i, step in enumerate(draws)]
        return {**self._head(body), "choices": choices, "usage": usage(prompts, draws)}

    async def stream(self, body: Mapping[str, Any], sequences: int) -> AsyncGenerator[dict[str, Any], None]:
        prompts, draws = await self._draw(body, sequences)
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

    async def _draw(self, body: Mapping[str, Any], sequences: int) -> tuple[list[list[int]], list[Step]]:
        self.bodies.append(body)
        if self.refuse is not None:
            raise self.refuse
        prompts = self._prompts(body)
        cap = body.get("max_completion_tokens", body.get("max_tokens"))
        assert cap is not None  # vLLM too draws a token to score a prompt
        draw = Draw(n=body["n"], max_tokens=max(1, cap), temperature=body.get("temperature", 1.0))
        seeds = random.Random(body.get("seed"))
        steps: list[Step] = []
        for prompt in prompts:
            own = [seeds.randrange(1 << 32) for _ in range(draw.n)]
            try:
                steps += await self.policy.sample(prompt, draw, own)
            except SampleAborted:
                raise asyncio.CancelledError from None
        assert len(steps) == sequences
        return prompts, steps

    @staticmethod
    def _prompts(body: Mapping[str, Any]) -> list[list[int]]:
        if "messages" in body:
            return [list(encode("".join(m["content"] for m in body["messages"])))]
        return [list(encode(p)) if isinstance(p, str) else p for p in body["prompt"]]

    @staticmethod
    def _head(body: Mapping[str, Any]) -> dict[str, Any]:
        kind = "chat.completion" if "messages" in body else "text_completion"
        return {"id": "cmpl-1", "object": kind, "created": 1_700_000_000, "model": "policy"}

    def _choice(self, body: Mapping[str, Any], index: int, step: Step) -> dict[str, Any]:
        content = (
            {"message": {"role": "assistant", "content": step.text}}
            if "messages" in body
            else {"text": step.text}
        )
        return {"index": index, "logprobs": None, "finish_reason": self._finish(step), **content}

    def _finish(self, step: Step) -> str:
        return self.finish or ("length" if step.finish == "length" else "stop")


def usage(prompts: list[list[int]], draws: list[Step]) -> dict[str, int]:
    read, written = sum(map(len, prompts)), sum(len(step.token_ids) for step in draws)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
