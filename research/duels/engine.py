"""A server's policy and value model, as a search that lives outside the server asks them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ramify_client import AsyncClient
from ramify_client.calls import Call

DELIMITER = "\n"
STEP_TOKENS, STEPS = 16, 8
"""Longest step in tokens, and longest answer in steps; those of six numbers have five."""
AT_ONCE = 256
"""Texts of one request."""


@dataclass(frozen=True, slots=True)
class Draft:
    """An answer as far as it is written."""

    text: str = ""
    steps: int = 0
    finished: bool = False
    """The model has written its end token."""

    @property
    def open(self) -> bool:
        """True if another step may be drawn."""
        return not self.finished and self.steps < STEPS


@dataclass(slots=True)
class Engine:
    """The models behind a server, for one problem."""

    client: AsyncClient
    prompt: str
    temperature: float
    end: str = "</s>"
    """The text of the policy's end token."""
    tokens: int = 0
    """Tokens generated so far."""

    async def extended(self, drafts: Sequence[Draft]) -> list[Draft]:
        """Draw one step after each draft, all in one request."""
        if not drafts:
            return []
        body = {
            "prompt": [self.prompt + draft.text for draft in drafts],
            "max_tokens": STEP_TOKENS,
            "stop": DELIMITER,
            "include_stop_str_in_output": True,
            "temperature": self.temperature,
        }
        call: Call[Any] = Call("POST", "/v1/completions", json.loads, body, repeatable=False)
        reply = await self.client.send(call)
        self.tokens += reply["usage"]["completion_tokens"]
        choices = sorted(reply["choices"], key=lambda choice: int(choice["index"]))
        return [_after(draft, choice) for draft, choice in zip(drafts, choices, strict=True)]

    async def values(self, drafts: Sequence[Draft]) -> list[float]:
        """Judge drafts: expected outcomes, [0, 1]. A finished one is judged with its end token."""
        texts = [draft.text + (self.end if draft.finished else "") for draft in drafts]
        found: list[float] = []
        for first in range(0, len(texts), AT_ONCE):
            found += (await self.client.value(self.prompt, texts[first : first + AT_ONCE])).values
        return found


def _after(draft: Draft, choice: dict[str, Any]) -> Draft:
    finished = choice["finish_reason"] == "stop" and not choice["text"].endswith(DELIMITER)
    return Draft(draft.text + choice["text"], draft.steps + 1, finished)
