"""A server's policy and value model, as a search that lives outside the server asks them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ramify.rewards.verifier import Example
from ramify_client import AsyncClient
from ramify_client.calls import Call

DELIMITER = "\n"
"""The end of a step."""
STEP_TOKENS, ANSWER_TOKENS = 16, 64
"""Longest step, longest answer."""
AT_ONCE = 256
"""Texts of one request."""


@dataclass(frozen=True, slots=True)
class Draft:
    """An answer as far as it is written."""

    text: str
    finished: bool = False
    """The model has written its end token."""


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
    example: Example | None = None
    """The problem, for arms that need more of it than its prompt."""

    async def steps(self, texts: Sequence[str]) -> list[Draft]:
        """Write each text on by one step, all in one request."""
        return await self._continued(
            texts, {"max_tokens": STEP_TOKENS, "stop": DELIMITER, "include_stop_str_in_output": True}
        )

    async def answers(self, texts: Sequence[str]) -> list[Draft]:
        """Write each text on to the end of the answer, all in one request."""
        return await self._continued(texts, {"max_tokens": ANSWER_TOKENS})

    async def values(self, drafts: Sequence[Draft]) -> list[float]:
        """Judge drafts: expected outcomes, [0, 1]. A finished one is judged with its end token."""
        texts = [draft.text + (self.end if draft.finished else "") for draft in drafts]
        found: list[float] = []
        for first in range(0, len(texts), AT_ONCE):
            found += (await self.client.value(self.prompt, texts[first : first + AT_ONCE])).values
        return found

    async def _continued(self, texts: Sequence[str], until: dict[str, Any]) -> list[Draft]:
        prompts = [self.prompt + text for text in texts]
        body = {"prompt": prompts, "temperature": self.temperature, **until}
        call: Call[Any] = Call("POST", "/v1/completions", json.loads, body, repeatable=False)
        reply = await self.client.send(call)
        self.tokens += reply["usage"]["completion_tokens"]
        choices = sorted(reply["choices"], key=lambda choice: int(choice["index"]))
        stop = until.get("stop")
        return [
            Draft(
                text + choice["text"],
                choice["finish_reason"] == "stop" and not (stop and choice["text"].endswith(stop)),
            )
            for text, choice in zip(texts, choices, strict=True)
        ]
