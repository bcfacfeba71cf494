"""An engine that is killed: one of the session's own, so this comes after all that needs them."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from fixtures_engines import LiveEngines, until
from ramify.engines import SampleParams, SampleRequest
from ramify.search.protocols import EngineDead
from ramify.search.records import Sampling


def test_the_death_of_an_engine_reaches_those_who_wait_and_those_who_come_later(
    live_engines: LiveEngines,
) -> None:
    engines = live_engines.engines
    prompt = engines.tokenizer.encode("3 5 7 8 to 24\n")
    long = SampleRequest(prompt, SampleParams(max_tokens=300, temperature=1.0, ignore_eos=True))

    async def ever_again() -> None:
        while True:
            await engines.by_role["policy"].generate([long] * 8)

    async def go() -> None:
        waiting = asyncio.create_task(ever_again())
        await until(lambda: engines.stats()["policy_running"])
        os.kill(engines.pids[0], signal.SIGKILL)
        with pytest.raises(EngineDead):
            await asyncio.wait_for(waiting, 5)
        await asyncio.wait_for(engines.dead.wait(), 5)
        assert engines.dead_reason is not None
        assert "policy engine's process" in engines.dead_reason
        assert "code -9" in engines.dead_reason
        with pytest.raises(EngineDead, match="code -9"):
            await engines.policy.sample(prompt, Sampling(max_tokens=4), [1])
        with pytest.raises(EngineDead):
            await engines.probe(5.0)
        assert len(await engines.scorer.score([prompt])) == 1, "the other one still works"

    live_engines.run(go())
