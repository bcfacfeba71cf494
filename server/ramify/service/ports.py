"""The protocols that the service asks of the engines and of the tokenizer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from ramify.engines import Measurement, NamedPolicy, Serving, Text
from ramify.search.crowd import Crowd
from ramify.search.protocols import Policy, Scorer


class Tokenizer(Protocol):
    """The policy's tokenizer."""

    def encode(self, text: str) -> list[int]:
        """A prompt's token ids, the model's own leading special tokens included."""
        ...

    def encode_continuation(self, text: str) -> list[int]:
        """Token ids of text that follows a prompt: no special tokens are added."""
        ...

    def encode_chat(
        self, messages: Sequence[Mapping[str, str]], template: Mapping[str, Any] | None = None
    ) -> list[int]:
        """A conversation through the chat template, which `template` tells more; ready for the model's turn unless
        that says otherwise. Raises `ValueError` without a template, and if it refuses."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str: ...

    def spell(self, prefix: Sequence[int], tokens: Sequence[int]) -> tuple[str, tuple[int, ...]]:
        """The text that `tokens` add to `prefix`, and its length in characters once each token is in."""
        ...


class Plain(Protocol):
    """Completions of the policy alone, in OpenAI's fields and shapes."""

    async def prompt_tokens(self, body: Mapping[str, Any]) -> int:
        """Tokens of the prompt of a chat or a response, chat template included.

        Raises `RequestRefused` if no prompt can be made of it."""
        ...

    async def tokenize(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """vLLM's answer to POST /tokenize. Raises `RequestRefused`."""
        ...

    async def detokenize(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """vLLM's answer to POST /detokenize. Raises `RequestRefused`."""
        ...

    async def tokenizer_info(self) -> Mapping[str, Any]:
        """vLLM's answer to GET /tokenizer_info."""
        ...

    async def complete(self, body: Mapping[str, Any], sequences: int) -> Mapping[str, Any]:
        """The whole answer. Raises an `EngineError` or `EngineDead`; cancelled, its engine work is aborted."""
        ...

    def stream(self, body: Mapping[str, Any], sequences: int) -> AsyncGenerator[Mapping[str, Any], None]:
        """Chunks, each with the `usage` of its choice so far; the last has no choices and the whole usage.

        Of a response, its events."""
        ...


class Engines(Protocol):
    """Policy and scorer, running."""

    serving: Serving
    """The model and the release that they serve. Assigned anew when another is activated: inside `exclusive`, or
    inside `trying` if it is another adapter on the same weights."""
    dead_reason: str | None
    """Which engine is gone and how, once `dead` is set."""

    @property
    def policies(self) -> Mapping[str, Policy]:
        """The policies that a search may name: `records.OWN_POLICY` is the one served, and draws if none is named."""
        ...

    @property
    def others(self) -> Mapping[str, NamedPolicy]:
        """The policies beside it."""
        ...

    @property
    def scorer(self) -> Scorer | None: ...

    @property
    def crowd(self) -> Crowd:
        """The searches that use the policy."""
        ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def plain(self) -> Plain: ...

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and answer together."""
        ...

    @property
    def dead(self) -> asyncio.Event:
        """Set once an engine is gone for good."""
        ...

    def memory(self) -> Sequence[str]:
        """Return what each engine holds, a line each."""
        ...

    def stats(self) -> Mapping[str, float]:
        """Return figures by name, for the metrics."""
        ...

    async def probe(self, deadline: float) -> None:
        """Ask each engine one small thing; raise if one fails or makes no step within `deadline` seconds
        (`TimeoutError`; `EngineHeld` if none was possible)."""
        ...

    async def close(self) -> None: ...

    @property
    def tolerance(self) -> float:
        """Distance that two computations of one figure may have, relative to the figure if it is above 1."""
        ...

    def exclusive(self, seconds: float) -> AbstractAsyncContextManager[None]:
        """Hold everybody else's requests once those under way have ended. Raises `EngineBusy` after `seconds`."""
        ...

    def lease(self) -> AbstractContextManager[Serving]:
        """Have the calling task be answered by the release served now, for as long as the block runs."""
        ...

    def trying(self, serving: Serving) -> AbstractAsyncContextManager[None]:
        """Lease a release that is not served yet, its adapter loaded first if it is one. Raises `EngineError`."""
        ...

    async def reload(self, policy: Path, value: Path | None, value_head: Path | None) -> None:
        """Load other weights and forget cached prefixes, inside `exclusive` only. Failed, they may hold anything."""
        ...

    async def reset_prefix_caches(self) -> None: ...

    async def measure(self, texts: Sequence[Text], calibration: tuple[float, float]) -> list[Measurement]:
        """Log-probabilities and values of texts under the release that the calling task leases, with (a, b) of the
        values."""
        ...

    def give_up(self, reason: str) -> None:
        """Count them as dead."""
        ...
