"""Probes of an engine that made no step."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from ramify.engines.engines import Engines
from ramify.engines.errors import EngineHeld, PolicyUnreachable


class Still:
    """An engine that makes no step; what holds it lets go while it is asked."""

    launch = SimpleNamespace(role="policy")
    stats = SimpleNamespace(steps=7)

    def __init__(self, held: bool, elsewhere: bool = False) -> None:
        self.held, self.elsewhere = held, elsewhere

    async def ping(self, token: int) -> None:
        self.held = False
        await asyncio.Event().wait()


@pytest.mark.parametrize("held", [True, False])
def test_an_engine_that_was_held_when_it_was_asked_does_not_hang(held: bool) -> None:
    asker: Any = SimpleNamespace(_tokenizers={"policy": SimpleNamespace(a_token=1)})
    backend: Any = Still(held)
    with pytest.raises(TimeoutError) as found:
        asyncio.run(Engines._probe(asker, backend, 0.01))
    assert isinstance(found.value, EngineHeld) == held


def test_another_servers_engine_that_makes_no_step_is_away_and_ends_nobody() -> None:
    asker: Any = SimpleNamespace(_tokenizers={"policy": SimpleNamespace(a_token=1)})
    backend: Any = Still(held=False, elsewhere=True)
    with pytest.raises(PolicyUnreachable, match="made no step within"):
        asyncio.run(Engines._probe(asker, backend, 0.01))
