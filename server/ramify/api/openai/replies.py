"""Replies of POST /v1/completions and /v1/chat/completions in OpenAI's shapes, with `ramify` beside for a search.

They are made of a searched tree, or of what the policy alone wrote, which comes in vLLM's shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field

from ramify.api import convert, streaming
from ramify.api.openai.convert import Body, stops
from ramify.api.openai.requests import ChatRequest, without_effect
from ramify.api.wire_common import Reply
from ramify.api.wire_search import PolicyUsage, TreeLink, UsedDefaults
from ramify.engines import Serving
from ramify.search import records
from ramify.search.cutting import first_stop
from ramify.search.tree import Node, Tree
from ramify.service.completion_spec import PREFIX
from ramify.service.ports import Tokenizer
from ramify.service.search_view import release_of, search_id

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
"""OpenAI's; `content_filter`: safety scorers have left no answer."""


def absent(value: object) -> bool:
    """Return whether a field is left out of the answer."""
    return value is None


class CompletionDetails(Reply):
    reasoning_tokens: int | None = None


class Usage(Reply):
    prompt_tokens: int
    completion_tokens: int = Field(description="Every generated token; of a search, those of its whole tree.")
    total_tokens: int
    completion_tokens_details: CompletionDetails | None = Field(
        default=None, exclude_if=absent, description="With a reasoning parser."
    )


class Searched(Reply):
    """The search behind the choices."""

    tree: TreeLink
    search_id: str
    status: records.Status
    stop_reason: records.StopReason | None
    release: str
    defaults: UsedDefaults | None = Field(
        description="Search defaults that were used, since the request did not say; null: none."
    )
    temperature: float = Field(
        description="Temperature of its draws; the default if 0 was sent, at which a search would find nothing new."
    )
    truncated_answers: int = Field(
        description="Draws cut by `max_tokens` or `search.max_depth` before the answer's end; worth 0."
    )
    pruned_branches: int = Field(description="Draws that safety scorers closed; worth 0.")
    by_policy: Mapping[str, PolicyUsage] | None = Field(
        default=None, description="The part of each policy, by name; null if the search names none."
    )
    without_effect: list[str] = Field(
        description="Fields of the request that a search does not heed, such as `ignore_eos`."
    )


class CompletionReply(Reply):
    """The fields that both answers share."""

    id: str
    created: int
    model: str
    system_fingerprint: str = Field(description="Id of the release that wrote it.")
    usage: Usage
    ramify: Searched | None = Field(default=None, description="With `search` only.")


class CompletionLogprobs(Reply):
    tokens: list[str]
    token_logprobs: list[float | None] = Field(description="Null for the first token of an echoed prompt.")
    top_logprobs: list[dict[str, float] | None] | None = Field(description="Null beside `search`.")
    text_offset: list[int]


class CompletionChoice(Reply):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason


class Completion(CompletionReply):
    object: Literal["text_completion"] = "text_completion"
    choices: list[CompletionChoice]


class TokenLogprob(Reply):
    token: str
    logprob: float
    bytes: list[int] | None


class ContentLogprob(TokenLogprob):
    top_logprobs: list[TokenLogprob]


class ChatLogprobs(Reply):
    content: list[ContentLogprob]
    refusal: None = None


class CalledFunction(Reply):
    name: str
    arguments: str = Field(description="JSON, as the model wrote it.")


class ToolCall(Reply):
    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatAnswer(Reply):
    role: str = "assistant"
    content: str | None
    refusal: None = None
    reasoning: str | None = Field(
        default=None, exclude_if=absent, description="With a reasoning parser: what the model thought first."
    )
    tool_calls: list[ToolCall] | None = Field(
        default=None, exclude_if=absent, description="With a tool parser: what the client is asked to call."
    )


class ChatChoice(Reply):
    index: int
    message: ChatAnswer
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(CompletionReply):
    object: Literal["chat.completion"] = "chat.completion"
    choices: list[ChatChoice]


AnyCompletion = Completion | ChatCompletion
Json = dict[str, Any]
UsageWanted = Literal["never", "end", "always"]
"""When a stream tells its usage: never, in a chunk at its end, or in every chunk too."""
DONE = b"data: [DONE]\n\n"


def json_of(reply: AnyCompletion) -> bytes:
    """Write a reply as JSON, without `ramify` if no search was asked for."""
    return reply.model_dump_json(exclude=None if reply.ramify else {"ramify"}).encode()


# -- of a tree ---------------------------------------------------------------------------------------------------


def searched(tree: Tree, body: Body, serving: Serving, tokenizer: Tokenizer) -> AnyCompletion:
    """Make a reply whose choices are the best `n` answers of an ended search. `usage` is the whole tree's."""
    release, usage = release_of(tree, serving), tree.usage
    chat = isinstance(body, ChatRequest)
    fields: Json = {
        "id": PREFIX["chat" if chat else "completion"] + tree.id.removeprefix("tree_"),
        "created": int(tree.created_at),
        "model": tree.model,
        "system_fingerprint": release,
        "usage": Usage(
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            total_tokens=usage.prompt_tokens + usage.completion_tokens,
        ),
        "ramify": Searched(
            tree=convert.link_of(tree.id),
            search_id=search_id(tree.id),
            status=tree.status,
            stop_reason=tree.stop_reason,
            release=release,
            defaults=tree.defaults,
            temperature=tree.sampling.temperature,
            truncated_answers=tree.truncated,
            pruned_branches=tree.pruned,
            by_policy=usage.by_policy,
            without_effect=without_effect(body),
        ),
    }
    fields["choices"] = [
        _choice(index, tree, answer, body, tokenizer)
        for index, answer in enumerate(tree.candidates[: body.n or 1])
    ] or [_filtered(body)]
    return ChatCompletion(**fields) if chat else Completion(**fields)


def _choice(
    index: int, tree: Tree, answer: records.Answer, body: Body, tokenizer: Tokenizer
) -> ChatChoice | CompletionChoice:
    """Make a choice of one answer of a tree, cut before the string that ended it."""
    node = tree.nodes[answer.node]
    stop = first_stop(answer.text, stops(body)) if node.terminal == "stop" else None
    text = answer.text[: stop[0]] if stop else answer.text
    finish: FinishReason = "stop" if node.terminal in ("eos", "stop") else "length"
    if isinstance(body, ChatRequest):
        tokens = list(_spelled(tree, node, len(text), tokenizer)) if body.logprobs else None
        return ChatChoice(
            index=index,
            message=ChatAnswer(content=text),
            logprobs=None if tokens is None else _chat_logprobs(tokens),
            finish_reason=finish,
        )
    tokens = None if body.logprobs is None else list(_spelled(tree, node, len(text), tokenizer))
    return CompletionChoice(
        index=index,
        text=text,
        logprobs=None if tokens is None else _completion_logprobs(tokens),
        finish_reason=finish,
    )


def _filtered(body: Body) -> ChatChoice | CompletionChoice:
    """Make the choice of a tree whose answers were all pruned."""
    if isinstance(body, ChatRequest):
        message = ChatAnswer(content="")
        return ChatChoice(index=0, message=message, logprobs=None, finish_reason="content_filter")
    return CompletionChoice(index=0, text="", logprobs=None, finish_reason="content_filter")


def _chat_logprobs(tokens: list[tuple[str, float, int]]) -> ChatLogprobs:
    return ChatLogprobs(
        content=[
            ContentLogprob(token=text, logprob=logprob, bytes=list(text.encode()), top_logprobs=[])
            for text, logprob, _ in tokens
        ]
    )


def _completion_logprobs(tokens: list[tuple[str, float, int]]) -> CompletionLogprobs:
    return CompletionLogprobs(
        tokens=[text for text, _, _ in tokens],
        token_logprobs=[logprob for _, logprob, _ in tokens],
        top_logprobs=None,
        text_offset=[offset for _, _, offset in tokens],
    )


def _spelled(tree: Tree, node: Node, length: int, tokenizer: Tokenizer) -> Iterator[tuple[str, float, int]]:
    """Yield text, behaviour log-probability and offset of each token in the first `length` characters of an answer."""
    path = tree.steps(node)
    tokens = [token for at in path for token in at.tokens]
    logprobs = [logprob for at in path for logprob in at.logprobs]
    text, ends = tokenizer.spell(tree.prompt_of(node), tokens)
    start = 0
    for logprob, end in zip(logprobs, ends, strict=True):
        if start >= length and end > start:
            return
        yield text[start:end], logprob, start
        start = end


def chunks(reply: AnyCompletion, wanted: UsageWanted) -> Iterator[bytes]:
    """Write a searched answer as a stream: for each choice its text, then why it ended; then the usage."""
    whole = reply.model_dump(exclude=None if reply.ramify else {"ramify"})
    usage, choices = whole.pop("usage"), whole.pop("choices")
    head = whole if wanted == "never" else {**whole, "usage": usage if wanted == "always" else None}
    if isinstance(reply, ChatCompletion):
        head["object"] = "chat.completion.chunk"
    for choice in choices:
        for part in _parts(choice):
            yield streaming.event(None, {**head, "choices": [part]})
    if wanted != "never":
        yield streaming.event(None, {**head, "choices": [], "usage": usage})


def _parts(choice: Json) -> Iterator[Json]:
    index, finish = choice["index"], choice["finish_reason"]
    open_end = {"index": index, "logprobs": None, "finish_reason": None}
    if "text" in choice:
        yield {**open_end, "text": choice["text"], "logprobs": choice["logprobs"]}
        yield {**open_end, "text": "", "finish_reason": finish}
        return
    yield {**open_end, "delta": {"role": "assistant", "content": ""}}
    yield {
        **open_end,
        "delta": {"content": choice["message"]["content"]},
        "logprobs": choice["logprobs"],
    }
    yield {**open_end, "delta": {}, "finish_reason": finish}


# -- of the policy alone -----------------------------------------------------------------------------------------


def plain(answer: Mapping[str, Any], serving: Serving) -> AnyCompletion:
    """Make a reply of vLLM's whole answer, without what only vLLM knows."""
    usage = answer["usage"]
    fields: Json = {
        "id": answer["id"],
        "created": answer["created"],
        "model": serving.name,
        "system_fingerprint": answer["system_fingerprint"],
        "usage": usage_of(usage),
    }
    if answer["object"] == "text_completion":
        return Completion(**fields, choices=[_completion_choice(c) for c in answer["choices"]])
    return ChatCompletion(**fields, choices=[_chat_choice(c) for c in answer["choices"]])


def _completion_choice(choice: Mapping[str, Any]) -> CompletionChoice:
    return CompletionChoice(
        index=choice["index"],
        text=choice["text"],
        logprobs=choice["logprobs"],
        finish_reason=choice["finish_reason"],
    )


def _chat_choice(choice: Mapping[str, Any]) -> ChatChoice:
    return ChatChoice(
        index=choice["index"],
        message=ChatAnswer(**{"content": None, **_kept(choice["message"], ChatAnswer)}),
        logprobs=choice["logprobs"],
        finish_reason=choice["finish_reason"],
    )


def plain_chunk(chunk: Mapping[str, Any], serving: Serving, wanted: UsageWanted) -> bytes | None:
    """Write one of vLLM's chunks; return None for the usage if nobody asked for it."""
    if not chunk["choices"] and wanted == "never":
        return None
    content: Json = {
        "id": chunk["id"],
        "object": chunk["object"],
        "created": chunk["created"],
        "model": serving.name,
        "system_fingerprint": chunk["system_fingerprint"],
        "choices": [_chunk_choice(choice) for choice in chunk["choices"]],
    }
    if wanted != "never":
        usage = None if chunk["choices"] and wanted == "end" else chunk.get("usage")
        content["usage"] = usage and usage_of(usage).model_dump()
    return streaming.event(None, content)


def usage_of(usage: Mapping[str, Any]) -> Usage:
    """Return vLLM's usage without what only vLLM counts."""
    kept = _kept(usage, Usage)
    details = kept.pop("completion_tokens_details", None)
    return Usage(
        **kept,
        completion_tokens_details=details and CompletionDetails(**_kept(details, CompletionDetails)),
    )


def _kept(given: Mapping[str, Any], model: type[BaseModel]) -> Json:
    """Return the fields that a reply of ours has."""
    return {name: given[name] for name in model.model_fields if given.get(name) is not None}


def _chunk_choice(choice: Mapping[str, Any]) -> Json:
    kept = {name: choice[name] for name in ("index", "text") if name in choice}
    if "delta" in choice:
        delta = choice["delta"]
        told = ("role", "content", "reasoning", "tool_calls")
        kept["delta"] = {name: delta[name] for name in told if delta.get(name) is not None}
    return {**kept, "logprobs": choice.get("logprobs"), "finish_reason": choice.get("finish_reason")}
