"""The order in which engines start."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ramify.engines.errors import EngineStartFailed
from ramify.engines.start import Launch, at_once, build_all

POLICY = Launch("policy", Path("p"), "float32", None, 4, False, None, 0.5, 1, None, 1, compile=False)
VALUE = replace(POLICY, role="value")


class Launcher:
    """Starts nothing, and keeps what happened in which order."""

    def __init__(self, *failing: str, meet: int = 1) -> None:
        self.happened: list[str] = []
        self._failing = failing
        self._together = threading.Barrier(meet)

    def build(self, plan: Launch) -> Any:
        self.happened.append(f"{plan.role} begins")
        self._together.wait(10)
        if plan.role in self._failing:
            raise EngineStartFailed(plan.role)
        self.happened.append(f"{plan.role} is ready")
        return self

    async def close(self) -> None:
        self.happened.append("closed")


def test_engines_that_measure_a_gpus_memory_start_one_after_the_other() -> None:
    launcher = Launcher()
    plans = [POLICY, VALUE]
    asyncio.run(build_all(plans, at_once(plans, cpu=False), launcher.build))
    assert launcher.happened == ["policy begins", "policy is ready", "value begins", "value is ready"]


@pytest.mark.parametrize(("cpu", "kv_bytes"), [(True, None), (False, 1 << 30)])
def test_engines_that_measure_nothing_start_side_by_side(cpu: bool, kv_bytes: int | None) -> None:
    plans = [replace(POLICY, kv_bytes=kv_bytes), replace(VALUE, kv_bytes=kv_bytes)]
    launcher = Launcher(meet=2)
    asyncio.run(build_all(plans, at_once(plans, cpu=cpu), launcher.build))
    assert set(launcher.happened[:2]) == {"policy begins", "value begins"}


def test_one_engine_with_a_size_of_its_own_does_not_let_the_other_measure_beside_it() -> None:
    assert at_once([replace(POLICY, kv_bytes=1), VALUE], cpu=False) == 1


def test_an_engine_that_does_not_start_keeps_the_next_from_starting() -> None:
    launcher = Launcher("policy")
    with pytest.raises(EngineStartFailed, match=r"^policy$"):
        asyncio.run(build_all([POLICY, VALUE], 1, launcher.build))
    assert launcher.happened == ["policy begins"]


def test_an_engine_that_was_ready_is_closed_if_the_next_does_not_start() -> None:
    launcher = Launcher("value")
    with pytest.raises(EngineStartFailed, match=r"^value$"):
        asyncio.run(build_all([POLICY, VALUE], 1, launcher.build))
    assert launcher.happened == ["policy begins", "policy is ready", "value begins", "closed"]
