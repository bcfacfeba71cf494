"""What a search may be told; the fields of `POST /v1/search`. The server checks them, and its errors name the field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

Message = Mapping[str, str]
"""`role` and `content`."""
Text = str | Sequence[int]
"""Text, or token ids."""


class BranchOptions(TypedDict, total=False):
    """How to search and how to answer. What is absent, or `None`, is the server's to choose."""

    search: Mapping[str, Any] | None
    """`algorithm`, `budget`, `width` and so on."""
    sampling: Mapping[str, Any] | None
    """`temperature`, `top_p`, `top_k`, `max_tokens`, `stop` of one answer."""
    n: int | None
    """Distinct final answers in `candidates`, best first."""
    seed: int | None
    include_tree: bool | None
    """Send the whole tree with the answer."""
    train: bool | None
    """Whether the trainer may learn from this search."""
    deadline: float | None
    """Seconds from the request's arrival after which the server sends its best answer so far."""
    stream_options: Mapping[str, Any] | None
    """Of `stream` only; `{"nodes": True}` has every `progress` carry what has grown."""
    idempotency_key: str | None
    """One search for one key; absent, the client makes one up, so that a retry never searches twice."""


class SearchOptions(BranchOptions, total=False):
    """And of what prompt."""

    messages: Sequence[Message] | None
    """In place of `prompt`: a conversation."""
    chat_template_kwargs: Mapping[str, Any] | None
    """With `messages`: variables of the model's chat template, such as `enable_thinking`."""
    task: Mapping[str, Any] | None
    """`name` and `problem`: what answers are judged by."""
    model: str | None
