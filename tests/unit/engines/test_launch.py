from __future__ import annotations

from pathlib import Path

import pytest

from ramify.engines import EngineConfig
from ramify.engines.checkpoints import Checkpoint
from ramify.engines.config import GIB, default_kv_bytes, default_threads
from ramify.engines.start import can_compile, launches

POLICY = Checkpoint(Path("p"), 512, 32, "float32")
VALUE = Checkpoint(Path("v"), 512, 32, "bfloat16")


def test_a_policy_alone_is_one_engine() -> None:
    assert [launch.role for launch in launches(EngineConfig(Path("p")), POLICY, None, cpu=True)] == ["policy"]


def test_kv_blocks_are_small_on_a_cpu_and_vllm_s_own_on_a_gpu() -> None:
    config = EngineConfig(Path("p"), Path("v"))
    assert [launch.block_size for launch in launches(config, POLICY, VALUE, cpu=True)] == [32, 32]
    assert [launch.block_size for launch in launches(config, POLICY, VALUE, cpu=False)] == [None, None]


def test_given_figures_win_over_the_machine_s() -> None:
    config = EngineConfig(Path("p"), Path("v"), policy_kv_bytes=7, threads=3, compile=False)
    policy, value = launches(config, POLICY, VALUE, cpu=True)
    assert (policy.kv_bytes, policy.threads, policy.compile) == (7, 3, False)
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


def test_weights_keep_their_precision_unless_another_is_asked_for() -> None:
    config = EngineConfig(Path("p"), Path("v"))
    assert [launch.dtype for launch in launches(config, POLICY, VALUE, cpu=True)] == ["float32", "bfloat16"]
    config = EngineConfig(Path("p"), Path("v"), dtype="float16")
    assert [launch.dtype for launch in launches(config, POLICY, VALUE, cpu=True)] == ["float16"] * 2
