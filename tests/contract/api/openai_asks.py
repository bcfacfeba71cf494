"""How the tests of OpenAI's routes ask, and how they read what comes back."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from .world import PROMPT, World

CHAT = [{"role": "user", "content": PROMPT}]
ROUTES = {"completion": "/v1/completions", "chat": "/v1/chat/completions"}
BOTH = pytest.mark.parametrize("route", ROUTES)


async def ask(world: World, route: str = "completion", **body: Any) -> httpx.Response:
    headers = body.pop("headers", {})
    prompt = {"messages": CHAT} if route == "chat" else {"prompt": PROMPT}
    return await world.http.post(ROUTES[route], json={**prompt, **body}, headers=headers)


def frames(text: str) -> list[dict[str, Any]]:
    """Every data frame but the last, which says that it is the last; comments are left out."""
    data = [line.removeprefix("data: ") for line in text.splitlines() if line and not line.startswith(":")]
    assert data.pop() == "[DONE]"
    return [json.loads(line) for line in data]


def content(choice: dict[str, Any]) -> str:
    text: str = choice["text"] if "text" in choice else choice.get("delta", choice.get("message"))["content"]
    return text
