"""Settings that engines are started with, and the order in which they start."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ramify.engines import EngineConfig, EngineOptions
from ramify.engines.config import GIB, default_kv_bytes, default_threads
from ramify.engines.errors import EngineStartFailed
from ramify.engines.judges import ONE_LABEL, Reading
from ramify.engines.model_folders import ModelFolder
from ramify.engines.start import Launch, at_once, build_all, can_compile, launches

POLICY_FILES = ModelFolder(Path("p"), 32, 192, "float32")
VALUE_FILES = ModelFolder(Path("v"), 32, 192, "bfloat16")
JUDGE = {"value": (VALUE_FILES, ONE_LABEL)}


def test_a_policy_alone_is_one_engine() -> None:
    assert [launch.role for launch in launches(EngineConfig(Path("p")), POLICY_FILES, {}, cpu=True)] == [
        "policy"
    ]


def test_kv_blocks_are_small_on_a_cpu_and_vllm_s_own_on_a_gpu() -> None:
    config = EngineConfig(Path("p"), Path("v"))
    assert [launch.block_size for launch in launches(config, POLICY_FILES, JUDGE, cpu=True)] == [32, 32]
    assert [launch.block_size for launch in launches(config, POLICY_FILES, JUDGE, cpu=False)] == [
        None,
        None,
    ]


def test_several_models_that_judge_share_the_memory_that_is_theirs() -> None:
    judges = {**JUDGE, "scorer_prm": (VALUE_FILES, Reading(labels=2, label=1))}
    policy, value, prm = launches(EngineConfig(Path("p")), POLICY_FILES, judges, cpu=False)
    assert (policy.role, value.role, prm.role) == ("policy", "value", "scorer_prm")
    assert value.gpu_fraction == prm.gpu_fraction == EngineOptions().value_gpu_fraction / 2
    assert (value.reading.labels, prm.reading.labels) == (1, 2)


def test_given_figures_win_over_the_machine_s() -> None:
    config = EngineConfig(
        Path("p"), Path("v"), options=EngineOptions(policy_kv_bytes=7 << 20, threads=3, compile=False)
    )
    policy, value = launches(config, POLICY_FILES, JUDGE, cpu=True)
    assert (policy.kv_bytes, policy.threads, policy.compile) == (7 << 20, 3, False)
    assert value.kv_bytes == default_kv_bytes()


def test_defaults_stay_within_the_machine() -> None:
    assert GIB // 4 <= default_kv_bytes() <= 4 * GIB
    assert 1 <= default_threads(2) <= default_threads(1)


def test_models_are_not_compiled_on_a_cpu_without_a_compiler(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert not can_compile(cpu=True)
    assert can_compile(cpu=False)


def precisions(config: EngineConfig, *, bfloat16: bool = True) -> list[str]:
    plans = launches(config, POLICY_FILES, JUDGE, cpu=True, bfloat16=bfloat16)
    return [launch.dtype for launch in plans]


def test_weights_keep_their_precision_unless_another_is_asked_for() -> None:
    config = EngineConfig(Path("p"), Path("v"))
    assert precisions(config) == ["float32", "bfloat16"]
    assert precisions(replace(config, options=EngineOptions(dtype="float16"))) == ["float16"] * 2


def test_bfloat16_is_served_in_float32_by_a_machine_that_cannot_multiply_it() -> None:
    config = EngineConfig(Path("p"), Path("v"))
    assert precisions(config, bfloat16=False) == ["float32"] * 2
    asked = replace(config, options=EngineOptions(dtype="bfloat16"))
    assert precisions(asked, bfloat16=False) == ["bfloat16"] * 2


POLICY, VALUE = launches(EngineConfig(Path("p"), Path("v")), POLICY_FILES, JUDGE, cpu=False)


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
