"""vLLM's server of one small model, as far as a remote policy asks it: the routes, the fields, the shapes."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from models import WORDS, write_tokenizer
from ramify.engines import Tokenizer

NAME, LENGTH = "words", 128
SHARES = {" 1": 0.4, " 2": 0.3, "\n": 0.2, "<eos>": 0.1}
"""Shares of the next token, whatever stands before."""
EVENT = 2
"""Tokens of one event."""


def write_policy(folder: Path) -> Path:
    """A model's directory without weights."""
    write_tokenizer(folder)
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": len(WORDS)}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@dataclass
class FakeVllm:
    """A server that draws from `SHARES`."""

    tokenizer: Tokenizer
    raw: bool = False
    """True gives the log-probabilities of the model, not those of what is drawn from, as vLLM does if not told."""
    as_ids: bool = True
    """False names tokens by their text."""
    names: tuple[str, ...] = (NAME,)
    key: str | None = None
    away: int = 0
    """Requests that get 503 from now on."""
    breaks: int = 0
    """Draws that end in the middle from now on."""
    gate: asyncio.Event | None = None
    """Waited for after the first event of a draw."""
    drawing: int = 0
    aborted: int = 0
    """Draws whose connection was closed before their end."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    """Requests for draws, in order."""

    def app(self) -> Starlette:
        post = {
            "/tokenize": self.tokenize,
            "/detokenize": self.detokenize,
            "/v1/completions": self.complete,
            "/v1/chat/completions": self.complete,
        }
        routes = [Route(path, route, methods=["POST"]) for path, route in post.items()]
        return Starlette(routes=[Route("/v1/models", self.models), *routes])

    def refusal(self, request: Request) -> Response | None:
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            return JSONResponse({"error": f"Unauthorized: {request.headers.get('authorization')}"}, 401)
        if self.away > 0:
            self.away -= 1
            return error(503, "no engine")
        return None

    async def models(self, request: Request) -> Response:
        cards = [{"id": name, "max_model_len": LENGTH, "parent": None} for name in self.names]
        return self.refusal(request) or JSONResponse({"data": cards})

    async def tokenize(self, request: Request) -> Response:
        body = await request.json()
        if "messages" in body:
            tokens = self.tokenizer.encode_chat(body["messages"])
        elif body.get("add_special_tokens", True):
            tokens = self.tokenizer.encode(body["prompt"])
        else:
            tokens = self.tokenizer.encode_continuation(body["prompt"])
        return JSONResponse(
            {"count": len(tokens), "max_model_len": LENGTH, "tokens": tokens, "token_strs": None}
        )

    async def detokenize(self, request: Request) -> Response:
        return JSONResponse({"prompt": self.tokenizer.hf.decode((await request.json())["tokens"])})

    async def complete(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        if refused := self.refusal(request):
            return refused
        if body["model"] not in self.names:
            return error(404, f"The model `{body['model']}` does not exist.")
        if isinstance(body.get("prompt"), list) and max(flat(body["prompt"])) >= len(WORDS):
            return error(400, "Token id is out of vocabulary", "prompt")
        tokens, finish = self.draw(body)
        if not body.get("stream"):
            return JSONResponse(self.whole(body, tokens, finish))
        return StreamingResponse(self.events(body, tokens, finish), media_type="text/event-stream")

    def draw(self, body: Mapping[str, Any]) -> tuple[list[int], str]:
        rng = random.Random(f"{body.get('seed')} {body.get('prompt')}")
        shares, ends = self.shares(body), {WORDS.index("<eos>"), *body.get("stop_token_ids", ())}
        tokens: list[int] = []
        for _ in range(body.get("max_tokens") or body["max_completion_tokens"]):
            tokens += rng.choices(list(shares), list(shares.values()))
            if tokens[-1] in ends and not body.get("ignore_eos"):
                return tokens, "stop"
        return tokens, "length"

    def shares(self, body: Mapping[str, Any]) -> dict[int, float]:
        """The distribution that is drawn from, likeliest first."""
        heat = body.get("temperature", 1.0)
        shares = {WORDS.index(word): share for word, share in SHARES.items()}
        if allowed := body.get("allowed_token_ids"):
            shares = {token: shares.get(token, 1e-6) for token in allowed}
        if heat == 0:
            return {next(iter(shares)): 1.0}
        powers = {token: share ** (1 / heat) for token, share in shares.items()}
        return {token: power / sum(powers.values()) for token, power in powers.items()}

    def logprobs(self, body: Mapping[str, Any], tokens: list[int]) -> dict[str, Any]:
        own = {WORDS.index(word): share for word, share in SHARES.items()}
        shares = own if self.raw or body.get("temperature") == 0 else self.shares(body)
        known = {token: math.log(share) for token, share in shares.items()}
        ranked = list(known.items())[: body["logprobs"]]
        return {
            "tokens": [self.named(token) for token in tokens],
            "token_logprobs": [known.get(token, -13.8) for token in tokens],
            "top_logprobs": [
                {self.named(token): known.get(token, -13.8)} | {self.named(one): lp for one, lp in ranked}
                for token in tokens
            ],
        }

    def named(self, token: int) -> str:
        return f"token_id:{token}" if self.as_ids else WORDS[token]

    async def events(self, body: Mapping[str, Any], tokens: list[int], finish: str) -> AsyncIterator[str]:
        self.drawing += 1
        ended = False
        try:
            for at in range(0, len(tokens), EVENT):
                some, last = tokens[at : at + EVENT], at + EVENT >= len(tokens)
                if self.breaks > 0 and at:
                    self.breaks -= 1
                    return
                choice: dict[str, Any] = {"index": 0, "finish_reason": finish if last else None}
                if "messages" in body:
                    choice["delta"] = {"content": self.tokenizer.decode(some)}
                else:
                    choice["text"] = self.tokenizer.decode(some)
                if body.get("logprobs") is not None:
                    choice["logprobs"] = self.logprobs(body, some)
                yield event({**head(body), "choices": [choice], "usage": usage(at + len(some))})
                if self.gate is not None:
                    await self.gate.wait()
            if body.get("stream_options"):
                yield event({**head(body), "choices": [], "usage": usage(len(tokens))})
            ended = True
            yield "data: [DONE]\n\n"
        finally:
            self.drawing -= 1
            self.aborted += not ended

    def whole(self, body: Mapping[str, Any], tokens: list[int], finish: str) -> dict[str, Any]:
        text = self.tokenizer.decode(tokens)
        content = (
            {"message": {"role": "assistant", "content": text}} if "messages" in body else {"text": text}
        )
        return {
            **head(body),
            "choices": [{"index": 0, "logprobs": None, "finish_reason": finish, **content}],
            "usage": usage(len(tokens)),
        }


def head(body: Mapping[str, Any]) -> dict[str, Any]:
    kind = "chat.completion" if "messages" in body else "text_completion"
    return {"id": "cmpl-1", "object": kind, "created": 1, "model": NAME}


def usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": 1 + tokens}


def event(chunk: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(chunk)}\n\n"


def error(status: int, message: str, param: str | None = None) -> Response:
    return JSONResponse({"error": {"message": message, "param": param, "code": status}}, status)


def flat(prompt: list[Any]) -> list[int]:
    return [token for one in prompt for token in (one if isinstance(one, list) else [one])]
