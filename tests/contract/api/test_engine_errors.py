"""An engine's refusal is the same at every route: its status, its code and when to try again."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import pytest

from ramify.engines.errors import EngineBusy, EngineError, RequestRefused, ScorerUnreachable
from ramify.search.protocols import EngineDead

from .world import PROMPT, FakeEngines, a_world

pytestmark = pytest.mark.anyio

ROUTES: dict[str, dict[str, Any]] = {
    "/v1/search": {"prompt": PROMPT, "search": {"algorithm": "mcts", "budget": {"simulations": 3}}},
    "/v1/completions": {"prompt": PROMPT},
    "/v1/value": {"prompt": PROMPT, "continuations": ["a"]},
}


def refusing(error: Exception) -> FakeEngines:
    """Engines that answer everything with `error`."""

    async def refuse(*_: object) -> NoReturn:
        raise error

    engines = FakeEngines()
    engines.policy.sample = engines.scorer.score = engines.plain.complete = refuse  # type: ignore[method-assign,assignment]
    return engines


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [
        (RequestRefused("a token that does not exist"), 400, "invalid_value", None),
        (EngineBusy("4 wait"), 503, "server_full", "2"),
        (ScorerUnreachable("the scorer at judge.test cannot be reached"), 503, "engine_unavailable", "5"),
        (EngineDead("gone"), 503, "engine_unavailable", "30"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
async def test_an_engines_error_is_the_same_at_every_route(
    tmp_path: Path, path: str, error: Exception, status: int, code: str, retry_after: str | None
) -> None:
    async with a_world(tmp_path, refusing(error)) as world:
        answer = await world.http.post(path, json=ROUTES[path])
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert answer.headers.get("retry-after") == retry_after


async def test_scores_that_are_no_values_are_a_failure_with_a_message(tmp_path: Path) -> None:
    async with a_world(tmp_path, refusing(EngineError("the value model gave nan"))) as world:
        answer = await world.http.post("/v1/value", json=ROUTES["/v1/value"])
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "generation_failed")
    assert answer.json()["error"]["message"] == "the value model gave nan"
